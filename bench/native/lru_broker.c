/* A broker in C with the policy of voicebus's broker and none of its promises: how fast can this policy be?
 *
 * Two ROUTERs, MANDATORY and non-blocking sends, a FIFO of waiting requests, workers with credits who take turns,
 * least recently used first, so that a worker with a free hand gets nothing while another has been waiting longer.
 * Each pass drains a batch from either side, places what can be placed, and sends all in one burst.
 *
 * What it leaves out is what voicebus is for: no deadlines, retries, leases, fairness, cancelling, results kept.
 * A worker that is gone is noticed when something is sent to it; what it held is lost.
 *
 * Clients send [1 or 2 frames]; workers get [client][these frames], and answer the same way. A worker that sends
 * the single frame 0x01 and two bytes has that many credits; the single frame 0x02 is its beat.
 */
#include "ends.h"

#include <getopt.h>

enum { BATCH = 128, HWM = 1000, BACKLOG = 4096, RETRY_NS = 2000000 };
enum { ID_ROOM = 16, FRAMES = 3, MAX_WORKERS = 1 << 12, READY_MARK = 1 };

/* [client][frame][frame?], whichever way it goes. `worker` is where a request went, -1 for an answer. */
typedef struct {
    int count, worker;
    zmq_msg_t frames[FRAMES];
} message_t;

/* Messages in order; grows. */
typedef struct {
    message_t *messages;
    size_t room, first, count;
} fifo_t;

typedef struct {
    uint8_t id[ID_ROOM];
    size_t id_bytes;
    long credits;
    bool in_turn, gone;
} worker_t;

static void *frontend, *backend;
static worker_t workers[MAX_WORKERS]; /* by a hash of the id; a ROUTER never gives an id twice */
static int turns[MAX_WORKERS], turns_first, turns_count, workers_count;
static fifo_t waiting, outgoing, parked;

/* A frame of libzmq may be moved only by zmq_msg_move(). */
static void message_move(message_t *to, message_t *from) {
    to->count = from->count;
    to->worker = from->worker;
    for (int at = 0; at < from->count; at++) {
        zmq_msg_init(&to->frames[at]);
        zmq_msg_move(&to->frames[at], &from->frames[at]);
        zmq_msg_close(&from->frames[at]);
    }
}

static void fifo_add(fifo_t *fifo, message_t *message) {
    if (fifo->count == fifo->room) {
        size_t bigger = fifo->room == 0 ? 1024 : 2 * fifo->room;
        message_t *messages = zeroed(bigger, sizeof *messages);
        for (size_t at = 0; at < fifo->count; at++)
            message_move(&messages[at], &fifo->messages[(fifo->first + at) % fifo->room]);
        free(fifo->messages);
        *fifo = (fifo_t){.messages = messages, .room = bigger, .count = fifo->count};
    }
    message_move(&fifo->messages[(fifo->first + fifo->count++) % fifo->room], message);
}

static message_t *fifo_take(fifo_t *fifo) {
    message_t *message = &fifo->messages[fifo->first];
    fifo->first = (fifo->first + 1) % fifo->room;
    fifo->count--;
    return message;
}

static int worker_of(zmq_msg_t *id) {
    const uint8_t *bytes = zmq_msg_data(id);
    size_t length = zmq_msg_size(id);
    uint32_t hash = 2166136261u;
    if (length > ID_ROOM)
        die("a routing id of %zu bytes", length);
    for (size_t at = 0; at < length; at++)
        hash = (hash ^ bytes[at]) * 16777619u;
    for (int place = (int)(hash % MAX_WORKERS);; place = (place + 1) % MAX_WORKERS) {
        worker_t *worker = &workers[place];
        if (worker->id_bytes == length && memcmp(worker->id, bytes, length) == 0)
            return place;
        if (worker->id_bytes == 0) {
            if (++workers_count == MAX_WORKERS)
                die("too many workers");
            memcpy(worker->id, bytes, length);
            worker->id_bytes = length;
            return place;
        }
    }
}

static void queue_worker(int place) {
    worker_t *worker = &workers[place];
    if (worker->in_turn || worker->gone || worker->credits <= 0)
        return;
    worker->in_turn = true;
    turns[(turns_first + turns_count++) % MAX_WORKERS] = place;
}

static bool take_from_worker(void) {
    zmq_msg_t id;
    if (!take(&id, backend))
        return false;
    message_t answer = {.worker = -1};
    answer.count = take_rest(answer.frames, FRAMES, backend, zmq_msg_more(&id) != 0);
    int place = worker_of(&id);
    worker_t *worker = &workers[place];
    if (answer.count == 1) {
        const uint8_t *mark = zmq_msg_data(&answer.frames[0]);
        if (zmq_msg_size(&answer.frames[0]) == 3 && mark[0] == READY_MARK) {
            worker->credits = mark[1] << 8 | mark[2];
            queue_worker(place);
        }
        close_frames(answer.frames, answer.count, FRAMES);
    } else if (answer.count == 0 || answer.count > FRAMES) {
        close_frames(answer.frames, answer.count, FRAMES);
    } else {
        worker->credits++;
        queue_worker(place);
        fifo_add(&outgoing, &answer);
    }
    zmq_msg_close(&id);
    return true;
}

static bool take_from_client(void) {
    message_t request = {.worker = -1};
    if (!take(&request.frames[0], frontend))
        return false;
    request.count = 1 + take_rest(request.frames + 1, FRAMES - 1, frontend, zmq_msg_more(&request.frames[0]) != 0);
    if (request.count < 2 || request.count > FRAMES)
        close_frames(request.frames, request.count, FRAMES);
    else
        fifo_add(&waiting, &request);
    return true;
}

static void place_waiting(void) {
    while (waiting.count > 0 && turns_count > 0) {
        int place = turns[turns_first];
        turns_first = (turns_first + 1) % MAX_WORKERS;
        turns_count--;
        worker_t *worker = &workers[place];
        worker->in_turn = false;
        if (worker->gone)
            continue;
        worker->credits--;
        queue_worker(place);
        message_t *request = fifo_take(&waiting);
        request->worker = place;
        fifo_add(&outgoing, request);
    }
}

/* Send a message or keep it: parked while its peer is full, waiting again if its worker is gone. */
static void send_or_keep(message_t *message) {
    const bool request = message->worker >= 0;
    void *socket = request ? backend : frontend;
    worker_t *worker = request ? &workers[message->worker] : NULL;
    int sent;
    if (request)
        sent = zmq_send(backend, worker->id, worker->id_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    else
        sent = zmq_msg_send(&message->frames[0], frontend, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    if (sent < 0) {
        int code = zmq_errno();
        if (code == EAGAIN) {
            fifo_add(&parked, message); /* answers have ids: nobody minds if others overtake it */
        } else if (code == EHOSTUNREACH && request) {
            worker->gone = true;
            message->worker = -1;
            fifo_add(&waiting, message);
        } else if (code == EHOSTUNREACH) {
            close_frames(message->frames, message->count, FRAMES);
        } else {
            die("send: %s", zmq_strerror(code));
        }
        return;
    }
    if (!request)
        zmq_msg_close(&message->frames[0]);
    for (int at = request ? 0 : 1; at < message->count; at++) {
        must(zmq_msg_send(&message->frames[at], socket, at + 1 < message->count ? ZMQ_SNDMORE : 0), "send");
        zmq_msg_close(&message->frames[at]);
    }
}

static void *bound(void *context, const char *endpoint, char *address, size_t room) {
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    if (socket == NULL)
        die("no socket: %s", zmq_strerror(zmq_errno()));
    set_option(socket, ZMQ_ROUTER_MANDATORY, 1);
    set_option(socket, ZMQ_SNDHWM, HWM);
    set_option(socket, ZMQ_RCVHWM, HWM);
    set_option(socket, ZMQ_BACKLOG, BACKLOG);
    set_option(socket, ZMQ_LINGER, 0);
    must(zmq_bind(socket, endpoint), endpoint);
    must(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &room), "getsockopt");
    return socket;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"frontend", required_argument, NULL, 'f'},
        {"backend", required_argument, NULL, 'b'},
        {NULL, 0, NULL, 0},
    };
    const char *front = "tcp://127.0.0.1:*", *back = "tcp://127.0.0.1:*";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'f': front = optarg; break;
        case 'b': back = optarg; break;
        default: die("usage: lru_broker [--frontend ENDPOINT] [--backend ENDPOINT]");
        }
    }
    void *context = zmq_ctx_new();
    char front_address[256], back_address[256];
    frontend = bound(context, front, front_address, sizeof front_address);
    backend = bound(context, back, back_address, sizeof back_address);
    printf("ready frontend=%s backend=%s\n", front_address, back_address);
    fflush(stdout);
    static watch_t watch;
    watch_add(&watch, backend);
    watch_add(&watch, frontend);
    for (;;) {
        bool more = waiting.count > 0 && turns_count > 0;
        watch_wait(&watch, more ? 0 : parked.count > 0 ? RETRY_NS : NS_PER_S);
        if (watch.ready[0])
            for (int left = BATCH; left > 0 && take_from_worker(); left--)
                continue;
        if (watch.ready[1])
            for (int left = BATCH; left > 0 && take_from_client(); left--)
                continue;
        place_waiting();
        for (size_t left = parked.count; left > 0; left--) {
            message_t again;
            message_move(&again, fifo_take(&parked));
            send_or_keep(&again);
        }
        while (outgoing.count > 0)
            send_or_keep(fifo_take(&outgoing));
    }
}
