/* The load generator of the native benchmark: the same program asks every broker that is compared.
 *
 * Dialects: `echo` sends [envelope][so many bytes], or with --frames 1 a single frame, and takes one message with
 * the same id, or --parts of them, for the answer. `vb1` speaks voicebus: SUBMIT, and the answer is all of
 * ACCEPTED, STARTED, CHUNK..., DONE. Every request must be answered exactly once, on the connection that asked,
 * with all its bytes and in order; whatever is not so is counted as an error.
 *
 * Closed loop: --window requests are always under way, spread over the connections. Open loop: --rate requests
 * a second are sent whether or not answers come, and latency runs from the moment a request was due, so that
 * a broker that stalls is not spared the requests it held up (no coordinated omission).
 */
#include "ends.h"
#include "tally.h"
#include "vb1.h"

#include <getopt.h>
#include <sys/random.h>

enum { OPEN_ROOM = 1 << 17, GREETING_S = 5 };

/* A request, by place. Its id is generation and place; the generation tells a late answer from its successor's. */
typedef struct {
    uint32_t generation, chunks;
    int connection;
    bool open, accepted;
    int64_t due_ns;
    uint64_t bytes;
} request_t;

typedef struct {
    void *socket;
    outlet_t out;
    long under_way, window;
    int index;
    bool greeted;
} connection_t;

static bool speaks_vb1, bundling, measuring;
static int frames = 2;
static long connections_count = 1, window = 64, request_bytes = 200, answer_bytes = 200, parts = 1, watched_pid;
static double rate_per_s, warmup_s = 0.2, seconds = 1, patience_s = 5;
static const char *engine = "bench", *voice = "amber";

static request_t *requests;
static uint32_t *vacant; /* places that are free, as a queue: a place rests long before it is used again */
static uint32_t room, vacant_first, vacant_count;
static int64_t from_ns = INT64_MAX, to_ns = INT64_MAX;
static uint8_t run[8], *request_payload;
static header_t submit_header;
static tally_t tally;

static void send_request(connection_t *connection, int64_t due_ns) {
    uint32_t place = vacant[vacant_first];
    vacant_first = (vacant_first + 1) % room;
    vacant_count--;
    request_t *request = &requests[place];
    *request = (request_t){
        .generation = request->generation + 1, .connection = connection->index, .open = true, .due_ns = due_ns,
    };
    uint64_t id = (uint64_t)request->generation << 32 | place;
    connection->under_way++;
    tally.sent++;
    uint8_t envelope[ENVELOPE_BYTES] = {0};
    if (speaks_vb1) {
        uint8_t job[16];
        memcpy(job, run, 8);
        put_be(job + 8, id, 8);
        write_envelope(envelope, SUBMIT, job, 0, 0, 0, 0);
        outlet_put(&connection->out, envelope, &submit_header, request_payload, (size_t)request_bytes);
        return;
    }
    put_be(envelope, id, ID_BYTES);
    if (frames == 2) {
        give(connection->socket, envelope, ENVELOPE_BYTES, true);
        give(connection->socket, request_payload, (size_t)request_bytes, false);
        return;
    }
    zmq_msg_t frame;
    must(zmq_msg_init_size(&frame, (size_t)request_bytes), "msg_init_size");
    memcpy(zmq_msg_data(&frame), request_payload, (size_t)request_bytes);
    memcpy(zmq_msg_data(&frame), envelope, ID_BYTES);
    must(zmq_msg_send(&frame, connection->socket, 0), "send");
}

/* The request with this id, or NULL: it was answered before, or somebody else asked. */
static request_t *find(const connection_t *connection, uint64_t id) {
    uint32_t place = (uint32_t)id;
    if (place < room) {
        request_t *request = &requests[place];
        if (request->open && request->generation == id >> 32 && request->connection == connection->index)
            return request;
    }
    tally.strays++;
    return NULL;
}

static void end_request(connection_t *connection, request_t *request) {
    int64_t now = now_ns();
    request->open = false;
    connection->under_way--;
    vacant[(vacant_first + vacant_count++) % room] = (uint32_t)(request - requests);
    tally.answered++;
    tally.received_bytes += request->bytes;
    if (now >= from_ns && now < to_ns)
        tally.in_span++;
    if (request->due_ns >= from_ns && request->due_ns < to_ns)
        tally_latency(&tally, now - request->due_ns);
}

static void note_code(const vb1_t *message) {
    if (tally.first_code[0] == '\0' && message->header_bytes > 1)
        unpack_text(message->header + 1, message->header_bytes - 1, tally.first_code, CODE_BYTES);
}

static void on_vb1(void *context, const vb1_t *message) {
    connection_t *connection = context;
    const uint8_t *envelope = message->envelope;
    int kind = envelope[3];
    if (kind == PONG) {
        connection->greeted = true;
        return;
    }
    request_t *request = NULL;
    if (memcmp(envelope + 4, run, 8) == 0) {
        request = find(connection, get_be(envelope + 12, 8));
    } else {
        note_code(message); /* what is malformed is answered without a job */
        tally.strays++;
    }
    if (request == NULL)
        return;
    switch (kind) {
    case ACCEPTED:
        tally.accepted++;
        tally.out_of_order += request->accepted;
        request->accepted = true;
        break;
    case STARTED: /* another attempt drops what came of the one before, the job has but one segment */
        tally.out_of_order += !request->accepted;
        request->chunks = 0;
        request->bytes = 0;
        break;
    case CHUNK:
        tally.out_of_order += get_be(envelope + 24, 4) != request->chunks++;
        request->bytes += message->payload_bytes;
        break;
    case SPOKEN:
        request->bytes = message->payload_bytes;
        /* fall through */
    case DONE:
        tally.out_of_order += !request->accepted;
        tally.wrong_bytes += request->bytes != (uint64_t)answer_bytes;
        end_request(connection, request);
        break;
    case FAILED:
        note_code(message);
        tally.failed++;
        end_request(connection, request);
        break;
    default:
        tally.strays++;
    }
}

static bool take_echo(connection_t *connection) {
    zmq_msg_t first, rest[1];
    if (!take(&first, connection->socket))
        return false;
    int count = take_rest(rest, 1, connection->socket, zmq_msg_more(&first) != 0);
    if (zmq_msg_size(&first) < ID_BYTES || count + 1 != frames) {
        tally.strays++;
    } else {
        const uint8_t *head = zmq_msg_data(&first);
        request_t *request = find(connection, get_be(head, ID_BYTES));
        if (request != NULL)
            tally.out_of_order += ++request->chunks + (frames == 2 ? head[PARTS_LEFT] : 0) != (uint32_t)parts;
        if (request != NULL && request->chunks == (uint32_t)parts) {
            request->bytes = zmq_msg_size(count == 1 ? &rest[0] : &first);
            tally.wrong_bytes += request->bytes != (uint64_t)answer_bytes;
            end_request(connection, request);
        }
    }
    close_frames(rest, count, 1);
    zmq_msg_close(&first);
    return true;
}

static void drain(connection_t *connection) {
    if (!speaks_vb1) {
        for (int left = PASS; left > 0 && take_echo(connection); left--)
            continue;
        return;
    }
    for (int left = PASS, came = 1; left > 0 && came > 0; left -= came) {
        came = vb1_take(connection->socket, on_vb1, connection);
        if (came > 1) {
            tally.received_bundles++;
            tally.received_in_bundles += (unsigned long)came;
        }
    }
}

/* A connection begins with PING, which finds out that the broker is there and, in a bundle, tells it that this end
 * reads bundles. */
static void greet(watch_t *watch, connection_t *connections) {
    int64_t until_ns = now_ns() + GREETING_S * NS_PER_S;
    uint8_t envelope[ENVELOPE_BYTES];
    write_envelope(envelope, PING, NULL, 0, 0, 1, 0);
    for (int at = 0; at < connections_count; at++) {
        outlet_put(&connections[at].out, envelope, NULL, NULL, 0);
        outlet_flush(&connections[at].out);
    }
    for (long greeted = 0; greeted < connections_count;) {
        if (now_ns() > until_ns)
            die("the broker answers no PING%s", bundling ? " in a bundle" : "");
        watch_wait(watch, NS_PER_S / 10);
        greeted = 0;
        for (int at = 0; at < connections_count; at++) {
            if (watch->ready[at])
                drain(&connections[at]);
            greeted += connections[at].greeted;
        }
    }
}

/* Send what is due; returns when there is something to send next, as far as that is known. */
static int64_t send_due(connection_t *connections, int64_t begun_ns, int64_t now) {
    int64_t next = INT64_MAX;
    if (rate_per_s > 0) {
        while ((next = begun_ns + (int64_t)((double)tally.sent * 1e9 / rate_per_s)) <= now) {
            if (vacant_count == 0) {
                next = now + NS_PER_S / 1000; /* it stays due, and its latency grows */
                break;
            }
            send_request(&connections[tally.sent % (unsigned long)connections_count], next);
        }
    } else {
        for (int at = 0; at < connections_count; at++)
            while (connections[at].under_way < connections[at].window)
                send_request(&connections[at], now_ns());
    }
    for (int at = 0; at < connections_count; at++)
        outlet_flush(&connections[at].out);
    return next;
}

/* Ask and take answers until `to_ns`, then only take what is still to come. Returns the processor time the broker
 * used between the edges. */
static int64_t play(watch_t *watch, connection_t *connections, double *span_s) {
    int64_t begun = now_ns(), used_ns = 0;
    int64_t begin_ns = begun + (int64_t)(warmup_s * 1e9), quiet_ns = INT64_MAX;
    bool ended = false;
    for (;;) {
        int64_t now = now_ns(), next = measuring ? to_ns : begin_ns;
        if (!measuring && now >= begin_ns) {
            used_ns = -cpu_ns(watched_pid);
            measuring = true;
            from_ns = now_ns();
            next = to_ns = from_ns + (int64_t)(seconds * 1e9);
        } else if (measuring && !ended && now >= to_ns) {
            *span_s = (double)(now - from_ns) / 1e9;
            used_ns += cpu_ns(watched_pid);
            to_ns = now;
            if (rate_per_s > 0) /* what fell due while this program was held up is not spared the broker either */
                send_due(connections, begun, now);
            ended = true;
            quiet_ns = now + (int64_t)(patience_s * 1e9);
        }
        if (!ended) {
            int64_t due = send_due(connections, begun, now);
            next = due < next ? due : next;
        } else {
            if (now >= quiet_ns)
                return used_ns;
            /* When all are answered, linger a little: a second answer would come now. */
            if (tally.answered == tally.sent && quiet_ns > now + NS_PER_S / 50)
                quiet_ns = now + NS_PER_S / 50;
            next = quiet_ns;
        }
        watch_wait(watch, next - now_ns());
        for (int at = 0; at < connections_count; at++)
            if (watch->ready[at])
                drain(&connections[at]);
    }
}

static void prepare(void) {
    room = rate_per_s > 0 ? OPEN_ROOM : 2 * (uint32_t)window;
    requests = zeroed(room, sizeof *requests);
    vacant = zeroed(room, sizeof *vacant);
    for (uint32_t place = 0; place < room; place++)
        vacant[place] = place;
    vacant_count = room;
    if (getrandom(run, sizeof run, 0) != sizeof run)
        die("no random bytes");
    request_payload = grown(NULL, (size_t)request_bytes);
    for (long at = 0; at < request_bytes; at++)
        request_payload[at] = at % 8 == 7 ? ' ' : (uint8_t)('a' + at % 26);
    pack_array(&submit_header, 6);
    pack_text(&submit_header, engine);
    pack_text(&submit_header, voice);
    pack_text(&submit_header, "");
    pack_text(&submit_header, "batch");
    pack_text(&submit_header, "");
    pack_number(&submit_header, (uint64_t)request_bytes);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"connect", required_argument, NULL, 'c'},     {"dialect", required_argument, NULL, 'd'},
        {"connections", required_argument, NULL, 'n'}, {"window", required_argument, NULL, 'w'},
        {"rate", required_argument, NULL, 'r'},        {"bytes", required_argument, NULL, 'q'},
        {"answer", required_argument, NULL, 'a'},      {"frames", required_argument, NULL, 'f'},
        {"warmup", required_argument, NULL, 'u'},      {"seconds", required_argument, NULL, 's'},
        {"patience", required_argument, NULL, 'p'},    {"watch", required_argument, NULL, 'x'},
        {"parts", required_argument, NULL, 'm'},       {"voice", required_argument, NULL, 'v'},
        {"server-key", required_argument, NULL, 'k'},
        {"bundle", no_argument, NULL, 'b'},                    {NULL, 0, NULL, 0},
    };
    const char *endpoint = NULL, *spoken = "echo", *server_key = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'c': endpoint = optarg; break;
        case 'd': spoken = optarg; break;
        case 'n': connections_count = number("connections", optarg, 1, MAX_SOCKETS); break;
        case 'w': window = number("window", optarg, 1, 1 << 16); break;
        case 'r': rate_per_s = decimal("rate", optarg, 1e7); break;
        case 'q': request_bytes = number("bytes", optarg, ID_BYTES, MAX_PAYLOAD_BYTES); break;
        case 'a': answer_bytes = number("answer", optarg, ID_BYTES, 1L << 28); break;
        case 'f': frames = (int)number("frames", optarg, 1, 2); break;
        case 'u': warmup_s = decimal("warmup", optarg, 60); break;
        case 's': seconds = decimal("seconds", optarg, 3600); break;
        case 'p': patience_s = decimal("patience", optarg, 600); break;
        case 'x': watched_pid = number("watch", optarg, 1, 1L << 30); break;
        case 'm': parts = number("parts", optarg, 1, 255); break;
        case 'v': voice = optarg; break;
        case 'k': server_key = optarg; break;
        case 'b': bundling = true; break;
        default: die("usage: load --connect ENDPOINT --dialect echo|vb1 [--connections N] [--window N | --rate N] "
                     "[--bytes N] [--answer N] [--frames 1|2] [--warmup S] [--seconds S] [--patience S] "
                     "[--watch PID] [--parts N] [--voice ID] [--server-key KEY] [--bundle]");
        }
    }
    if (endpoint == NULL)
        die("--connect is missing");
    if (seconds <= 0)
        die("nothing can be measured in no time");
    speaks_vb1 = strcmp(spoken, "vb1") == 0;
    if (!speaks_vb1 && strcmp(spoken, "echo") != 0)
        die("no dialect \"%s\"", spoken);
    if (bundling && !speaks_vb1)
        die("only vb1 has bundles");
    if (window < connections_count)
        die("%ld connections share a window of %ld: some would never ask", connections_count, window);
    precise_timers();
    prepare();
    void *context = zmq_ctx_new();
    static watch_t watch;
    connection_t *connections = zeroed((size_t)connections_count, sizeof *connections);
    for (int at = 0; at < connections_count; at++) {
        connection_t *connection = &connections[at];
        connection->socket = open_dealer(context, endpoint, server_key);
        connection->index = at;
        connection->window = window / connections_count + (at < window % connections_count);
        outlet_open(&connection->out, connection->socket, bundling);
        watch_add(&watch, connection->socket);
    }
    if (speaks_vb1)
        greet(&watch, connections);
    double span_s = 0;
    int64_t used_ns = play(&watch, connections, &span_s);
    tally.missing = tally.sent - tally.answered;
    uint64_t bundles = 0, bundled = 0;
    for (int at = 0; at < connections_count; at++) {
        bundles += connections[at].out.bundles;
        bundled += connections[at].out.bundled;
    }
    tally_print(&tally, span_s, used_ns, bundles == 0 ? 0 : (double)bundled / (double)bundles);
    return 0;
}
