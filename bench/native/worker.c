/* The echo worker of the native benchmark: what an engine would be that took no time, or always the same time.
 *
 * One process holds any number of workers, each with a socket and a registration of its own. Dialects:
 *
 *   echo   the peer is a broker that routes [client][...]; the answer is [client][head][so many bytes], behind
 *          --parts less one small messages
 *   ready  the same, but the worker announces itself and how many requests it will hold, and beats
 *   vb1    voicebus: READY, HEARTBEAT, and for each JOB the messages STARTED, CHUNK..., DONE
 *
 * Prints "ready" when every worker is registered (vb1), or has said that it is there. Ends at SIGTERM, with
 * GOODBYE where the dialect has one.
 */
#include "ends.h"
#include "vb1.h"

#include <getopt.h>
#include <signal.h>
#include <unistd.h>

enum { ROUTE_BYTES = 64, FIRST_ROOM = 1024, SAMPLE_RATE = 24000, BEAT_MS = 1000 };
enum { READY_MARK = 1, BEAT_MARK = 2 };

typedef enum { ECHO, WITH_READY, VB1 } dialect_t;

/* A request that is being worked on. */
typedef struct {
    int64_t due_ns;
    uint8_t route[ROUTE_BYTES], head[ENVELOPE_BYTES];
    size_t route_bytes, head_bytes;
} task_t;

typedef struct {
    void *socket;
    outlet_t out;
    char name[32];
    bool welcomed;
    int64_t beat_ns, next_beat_ns;
    task_t *tasks; /* a ring: `first` is the oldest of `count` */
    size_t room, first, count;
    int64_t *last_due_ns; /* of the tasks so many slots back, by place */
    unsigned long taken;
} worker_t;

static dialect_t dialect = ECHO;
static long slots = 1, answer_bytes = 200, service_us = 0, workers_count = 1, parts = 1;
static const char *engine = "bench", *voice = "amber";
static uint64_t incarnation;
static uint8_t *audio;
static volatile sig_atomic_t ended;

static void on_term(int number) {
    (void)number;
    ended = 1;
}

static void say_ready(worker_t *worker) {
    if (dialect == WITH_READY) {
        uint8_t ready[3] = {READY_MARK};
        put_be(ready + 1, (uint64_t)slots, 2);
        must(zmq_send(worker->socket, ready, sizeof ready, 0), "send");
    }
    if (dialect != VB1)
        return;
    uint8_t envelope[ENVELOPE_BYTES];
    header_t header = {.used = 0};
    write_envelope(envelope, READY, NULL, 0, 0, 0, 0);
    pack_array(&header, 10);
    pack_text(&header, worker->name);
    pack_number(&header, incarnation);
    pack_text(&header, engine);
    pack_array(&header, 1);
    pack_text(&header, "en");
    pack_number(&header, (uint64_t)slots);
    pack_number(&header, BEAT_MS);
    pack_number(&header, SAMPLE_RATE);
    pack_text(&header, "1");
    pack_array(&header, 1);
    pack_text(&header, voice);
    pack_number(&header, 100000);
    outlet_put(&worker->out, envelope, &header, NULL, 0);
}

static void beat(worker_t *worker) {
    if (dialect == WITH_READY) {
        uint8_t mark = BEAT_MARK;
        must(zmq_send(worker->socket, &mark, 1, 0), "send");
        return;
    }
    uint8_t envelope[ENVELOPE_BYTES];
    header_t header = {.used = 0};
    write_envelope(envelope, HEARTBEAT, NULL, 0, 0, 0, 0);
    pack_array(&header, 2);
    long busy = (long)worker->count;
    pack_number(&header, (uint64_t)(busy < slots ? slots - busy : 0));
    pack_array(&header, 1);
    pack_text(&header, voice);
    outlet_put(&worker->out, envelope, &header, NULL, 0);
}

/* All of it in one message: what an end that speaks in bundles may do with an answer of one chunk. */
static void speak_at_once(worker_t *worker, const task_t *task) {
    uint8_t envelope[ENVELOPE_BYTES];
    header_t header = {.used = 0};
    uint32_t segment = (uint32_t)get_be(task->head + 24, 4);
    write_envelope(envelope, SPOKEN, task->head + 4, (unsigned)get_be(task->head + 20, 2), SEGMENT_END, 0, segment);
    pack_array(&header, 5);
    pack_text(&header, worker->name);
    pack_text(&header, engine);
    pack_number(&header, SAMPLE_RATE);
    pack_number(&header, 1);
    pack_number(&header, (uint64_t)answer_bytes / 2);
    outlet_put(&worker->out, envelope, &header, audio, (size_t)answer_bytes);
}

/* STARTED, the audio in as few chunks as may be, DONE. */
static void speak(worker_t *worker, const task_t *task) {
    const uint8_t *job = task->head + 4;
    unsigned attempt = (unsigned)get_be(task->head + 20, 2);
    uint32_t segment = (uint32_t)get_be(task->head + 24, 4), chunks = 0;
    uint8_t envelope[ENVELOPE_BYTES];
    header_t header = {.used = 0};
    write_envelope(envelope, STARTED, job, attempt, 0, 0, segment);
    pack_array(&header, 4);
    pack_text(&header, worker->name);
    pack_text(&header, engine);
    pack_number(&header, SAMPLE_RATE);
    pack_number(&header, 1);
    outlet_put(&worker->out, envelope, &header, NULL, 0);
    for (long sent = 0; sent < answer_bytes; chunks++) {
        long left = answer_bytes - sent, bytes = left < MAX_PAYLOAD_BYTES ? left : MAX_PAYLOAD_BYTES;
        write_envelope(envelope, CHUNK, job, attempt, bytes == left ? SEGMENT_END : 0, chunks, segment);
        outlet_put(&worker->out, envelope, NULL, audio, (size_t)bytes);
        sent += bytes;
    }
    write_envelope(envelope, DONE, job, attempt, 0, 0, 0);
    header.used = 0;
    pack_array(&header, 2);
    pack_number(&header, chunks);
    pack_number(&header, (uint64_t)answer_bytes / 2);
    outlet_put(&worker->out, envelope, &header, NULL, 0);
}

static void answer(worker_t *worker, const task_t *task) {
    if (dialect == VB1 && worker->out.bundling && answer_bytes > 0 && answer_bytes <= MAX_PAYLOAD_BYTES) {
        speak_at_once(worker, task);
        return;
    }
    if (dialect == VB1) {
        speak(worker, task);
        return;
    }
    if (task->head_bytes == ENVELOPE_BYTES) {
        for (long left = parts - 1; left >= 0; left--) {
            uint8_t envelope[ENVELOPE_BYTES];
            memcpy(envelope, task->head, ENVELOPE_BYTES);
            envelope[PARTS_LEFT] = (uint8_t)left;
            give(worker->socket, task->route, task->route_bytes, true);
            give(worker->socket, envelope, ENVELOPE_BYTES, true);
            give(worker->socket, audio, (size_t)(left > 0 ? ID_BYTES : answer_bytes), false);
        }
        return;
    }
    give(worker->socket, task->route, task->route_bytes, true);
    zmq_msg_t frame;
    must(zmq_msg_init_size(&frame, (size_t)answer_bytes), "msg_init_size");
    memcpy(zmq_msg_data(&frame), audio, (size_t)answer_bytes);
    memcpy(zmq_msg_data(&frame), task->head, ID_BYTES);
    must(zmq_msg_send(&frame, worker->socket, 0), "send");
}

/* Take a request up: it is answered now, or when its turn on one of the slots has passed. */
static void begin(worker_t *worker, task_t *task) {
    if (service_us == 0) {
        answer(worker, task);
        return;
    }
    /* All take equally long, so the task so many slots back is the one whose slot this one gets. */
    int64_t *slot_free_ns = &worker->last_due_ns[worker->taken++ % (unsigned long)slots];
    int64_t from_ns = now_ns();
    if (*slot_free_ns > from_ns)
        from_ns = *slot_free_ns;
    task->due_ns = *slot_free_ns = from_ns + service_us * 1000;
    if (worker->count == worker->room) {
        task_t *bigger = zeroed(2 * worker->room, sizeof *bigger);
        for (size_t at = 0; at < worker->count; at++)
            bigger[at] = worker->tasks[(worker->first + at) % worker->room];
        free(worker->tasks);
        worker->tasks = bigger;
        worker->first = 0;
        worker->room *= 2;
    }
    worker->tasks[(worker->first + worker->count++) % worker->room] = *task;
}

static void on_vb1(void *context, const vb1_t *message) {
    worker_t *worker = context;
    uint8_t envelope[ENVELOPE_BYTES];
    task_t task = {.head_bytes = ENVELOPE_BYTES};
    char broker[130];
    uint64_t interval_ms = 0;
    size_t at;
    switch (message->envelope[3]) {
    case JOB:
        memcpy(task.head, message->envelope, ENVELOPE_BYTES);
        begin(worker, &task);
        break;
    case WELCOME:
        at = message->header_bytes < 2 ? 0 : unpack_text(message->header + 1, message->header_bytes - 1, broker, 130);
        if (at == 0 || !unpack_number(message->header + 1 + at, message->header_bytes - 1 - at, &interval_ms))
            die("a WELCOME that cannot be read");
        worker->beat_ns = (int64_t)interval_ms * 1000000;
        worker->next_beat_ns = now_ns() + worker->beat_ns;
        worker->welcomed = true;
        break;
    case REREGISTER:
        say_ready(worker);
        break;
    case DRAIN:
        write_envelope(envelope, DRAINED, NULL, 0, 0, 0, 0);
        outlet_put(&worker->out, envelope, NULL, NULL, 0);
        break;
    case GOODBYE:
        ended = 1;
        break;
    case FAILED:
        die("the broker took a message of ours for malformed: %.*s", (int)message->header_bytes, message->header);
    default: /* HEARTBEAT: it lives. CANCEL: what was taken up ends by itself, which the protocol allows. */
        break;
    }
}

/* Take one message of a socket that speaks echo; false if there is none. */
static bool take_echo(worker_t *worker) {
    zmq_msg_t route, frames[2];
    if (!take(&route, worker->socket))
        return false;
    int count = take_rest(frames, 2, worker->socket, zmq_msg_more(&route) != 0);
    if (count > 0) { /* a single frame is a broker's beat */
        task_t task = {.route_bytes = zmq_msg_size(&route)};
        size_t length = zmq_msg_size(&frames[0]);
        task.head_bytes = count == 2 ? ENVELOPE_BYTES : ID_BYTES;
        if (count > 2 || task.route_bytes > ROUTE_BYTES || length < task.head_bytes)
            die("a request of %d frames, the first of %zu bytes", count, length);
        memcpy(task.route, zmq_msg_data(&route), task.route_bytes);
        memcpy(task.head, zmq_msg_data(&frames[0]), task.head_bytes);
        begin(worker, &task);
    }
    close_frames(frames, count, 2);
    zmq_msg_close(&route);
    return true;
}

static void drain(worker_t *worker) {
    if (dialect != VB1) {
        for (int left = PASS; left > 0 && take_echo(worker); left--)
            continue;
        return;
    }
    for (int left = PASS, came = 1; left > 0 && came > 0; left -= came)
        came = vb1_take(worker->socket, on_vb1, worker);
}

/* Answer what is due, beat if it is time, and say when there is something to do again. */
static int64_t work(worker_t *worker, int64_t now) {
    while (worker->count > 0 && worker->tasks[worker->first].due_ns <= now) {
        answer(worker, &worker->tasks[worker->first]);
        worker->first = (worker->first + 1) % worker->room;
        worker->count--;
    }
    if (worker->welcomed && worker->next_beat_ns <= now) {
        beat(worker);
        worker->next_beat_ns = now + worker->beat_ns;
    }
    outlet_flush(&worker->out);
    int64_t next = worker->welcomed ? worker->next_beat_ns : now + NS_PER_S;
    if (worker->count > 0 && worker->tasks[worker->first].due_ns < next)
        next = worker->tasks[worker->first].due_ns;
    return next;
}

static void open_worker(worker_t *worker, void *socket, bool bundling, int index) {
    worker->socket = socket;
    outlet_open(&worker->out, worker->socket, bundling);
    snprintf(worker->name, sizeof worker->name, "native-%d", index);
    worker->room = FIRST_ROOM;
    worker->tasks = zeroed(worker->room, sizeof *worker->tasks);
    worker->last_due_ns = zeroed((size_t)slots, sizeof *worker->last_due_ns);
    worker->beat_ns = (int64_t)BEAT_MS * 1000000;
    /* Only voicebus answers a registration, and only these two dialects beat. */
    worker->welcomed = dialect == WITH_READY;
    worker->next_beat_ns = now_ns() + worker->beat_ns;
    say_ready(worker);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"connect", required_argument, NULL, 'c'}, {"dialect", required_argument, NULL, 'd'},
        {"workers", required_argument, NULL, 'w'}, {"slots", required_argument, NULL, 's'},
        {"bytes", required_argument, NULL, 'n'},   {"service-us", required_argument, NULL, 't'},
        {"parts", required_argument, NULL, 'p'},   {"server-key", required_argument, NULL, 'k'},
        {"bundle", no_argument, NULL, 'b'},
        {NULL, 0, NULL, 0},
    };
    const char *endpoint = NULL, *spoken = "echo", *server_key = NULL;
    bool bundling = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'c': endpoint = optarg; break;
        case 'd': spoken = optarg; break;
        case 'w': workers_count = number("workers", optarg, 1, MAX_SOCKETS); break;
        case 's': slots = number("slots", optarg, 1, 1024); break;
        case 'n': answer_bytes = number("bytes", optarg, ID_BYTES, 1L << 28); break;
        case 't': service_us = number("service-us", optarg, 0, 60L * 1000 * 1000); break;
        case 'p': parts = number("parts", optarg, 1, 255); break;
        case 'k': server_key = optarg; break;
        case 'b': bundling = true; break;
        default: die("usage: worker --connect ENDPOINT --dialect echo|ready|vb1 [--workers N] [--slots N] "
                     "[--bytes N] [--service-us N] [--parts N] [--server-key KEY] [--bundle]");
        }
    }
    if (endpoint == NULL)
        die("--connect is missing");
    if (strcmp(spoken, "vb1") == 0)
        dialect = VB1;
    else if (strcmp(spoken, "ready") == 0)
        dialect = WITH_READY;
    else if (strcmp(spoken, "echo") != 0)
        die("no dialect \"%s\"", spoken);
    if (dialect != VB1 && bundling)
        die("only vb1 has bundles");
    if (dialect == VB1 && answer_bytes % 2 != 0)
        die("audio is whole samples: --bytes must be even");
    if (dialect != ECHO && parts != 1)
        die("only echo has parts: with ready, each message of an answer would give a credit back");
    signal(SIGTERM, on_term);
    precise_timers();
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    incarnation = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000;
    audio = zeroed((size_t)answer_bytes, 1);
    void *context = zmq_ctx_new();
    static watch_t watch;
    worker_t *workers = zeroed((size_t)workers_count, sizeof *workers);
    for (int at = 0; at < workers_count; at++) {
        open_worker(&workers[at], open_dealer(context, endpoint, server_key), bundling, at);
        watch_add(&watch, workers[at].socket);
    }
    bool told = false;
    while (!ended) {
        int64_t now = now_ns(), next = now + NS_PER_S;
        int welcomed = 0;
        for (int at = 0; at < workers_count; at++) {
            int64_t due = work(&workers[at], now);
            next = due < next ? due : next;
            welcomed += workers[at].welcomed || dialect == ECHO;
        }
        if (!told && welcomed == workers_count) {
            puts("ready");
            fflush(stdout);
            told = true;
        }
        watch_wait(&watch, next - now_ns());
        for (int at = 0; at < workers_count; at++)
            if (watch.ready[at]) {
                drain(&workers[at]);
                outlet_flush(&workers[at].out);
            }
    }
    if (dialect == VB1) {
        uint8_t envelope[ENVELOPE_BYTES];
        write_envelope(envelope, GOODBYE, NULL, 0, 0, 0, 0);
        for (int at = 0; at < workers_count; at++) {
            outlet_put(&workers[at].out, envelope, NULL, NULL, 0);
            outlet_flush(&workers[at].out);
        }
        usleep(50 * 1000); /* the I/O thread sends it */
    }
    return 0;
}
