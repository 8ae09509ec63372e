/* What the programs of the native benchmark share: time, sockets, waiting, and options.
 *
 * Waiting asks ZMQ_EVENTS before it sleeps and sleeps in ppoll(), because zmq_poll() knows only whole
 * milliseconds: an open loop of 10,000 requests a second needs to wake every 100 microseconds, without
 * burning the core that the broker runs on. The kernel's timer slack (50 us) is switched off for the same
 * reason.
 */
#ifndef VOICEBUS_BENCH_ENDS_H
#define VOICEBUS_BENCH_ENDS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "zmq_api.h"

#define NS_PER_S INT64_C(1000000000)
#define HELPER static inline __attribute__((unused))

enum { MAX_SOCKETS = 1024, PASS = 256 };
/* In the echo dialect: an id first, and in an envelope how many messages of the answer are still to come. */
enum { ID_BYTES = 8, PARTS_LEFT = 31 };

HELPER int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

HELPER __attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

/* Ends the program unless `code` is a success of libzmq. */
HELPER void must(int code, const char *what) {
    if (code < 0)
        die("%s: %s", what, zmq_strerror(zmq_errno()));
}

HELPER void *grown(void *memory, size_t bytes) {
    void *bigger = realloc(memory, bytes);
    if (bigger == NULL)
        die("no memory for %zu bytes", bytes);
    return bigger;
}

HELPER void *zeroed(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (memory == NULL)
        die("no memory for %zu times %zu bytes", count, bytes);
    return memory;
}

/* The number given as an option, within its limits. */
HELPER long number(const char *name, const char *given, long least, long most) {
    char *end = NULL;
    errno = 0;
    long value = strtol(given, &end, 10);
    if (errno != 0 || end == given || *end != '\0' || value < least || value > most)
        die("--%s takes a number from %ld to %ld, not \"%s\"", name, least, most, given);
    return value;
}

HELPER double decimal(const char *name, const char *given, double most) {
    char *end = NULL;
    double value = strtod(given, &end);
    if (end == given || *end != '\0' || !(value >= 0 && value <= most))
        die("--%s takes a number from 0 to %g, not \"%s\"", name, most, given);
    return value;
}

HELPER void set_option(void *socket, int option, int value) {
    must(zmq_setsockopt(socket, option, &value, sizeof value), "setsockopt");
}

/* With a `server_key` that is not NULL the connection is encrypted by CURVE, under a new key pair. */
HELPER void *open_dealer(void *context, const char *endpoint, const char *server_key) {
    void *socket = zmq_socket(context, ZMQ_DEALER);
    if (socket == NULL)
        die("no socket: %s", zmq_strerror(zmq_errno()));
    /* The window bounds what is under way; a limit here would only make the ends block. */
    set_option(socket, ZMQ_SNDHWM, 0);
    set_option(socket, ZMQ_RCVHWM, 0);
    set_option(socket, ZMQ_LINGER, 500);
    if (server_key != NULL) {
        char public_key[Z85_KEY_BYTES], secret_key[Z85_KEY_BYTES];
        must(zmq_curve_keypair(public_key, secret_key), "curve_keypair");
        must(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, strlen(server_key)), "server key");
        must(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_key, Z85_KEY_BYTES), "public key");
        must(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret_key, Z85_KEY_BYTES), "secret key");
    }
    must(zmq_connect(socket, endpoint), endpoint);
    return socket;
}

/* Sockets that are waited for together; `ready` says which may have something. */
typedef struct {
    int count;
    void *sockets[MAX_SOCKETS];
    bool ready[MAX_SOCKETS];
    struct pollfd polled[MAX_SOCKETS];
} watch_t;

HELPER void watch_add(watch_t *watch, void *socket) {
    if (watch->count == MAX_SOCKETS)
        die("at most %d sockets", MAX_SOCKETS);
    int descriptor = -1;
    size_t length = sizeof descriptor;
    must(zmq_getsockopt(socket, ZMQ_FD, &descriptor, &length), "getsockopt");
    watch->sockets[watch->count] = socket;
    watch->polled[watch->count] = (struct pollfd){.fd = descriptor, .events = POLLIN};
    watch->count++;
}

/* Wait at most so long until a socket may be read. A spurious wake-up is possible, a missed one is not. */
HELPER void watch_wait(watch_t *watch, int64_t timeout_ns) {
    bool any = false;
    for (int at = 0; at < watch->count; at++) {
        int events = 0;
        size_t length = sizeof events;
        must(zmq_getsockopt(watch->sockets[at], ZMQ_EVENTS, &events, &length), "getsockopt");
        watch->ready[at] = (events & ZMQ_POLLIN) != 0;
        any |= watch->ready[at];
    }
    if (any)
        return;
    if (timeout_ns < 0)
        timeout_ns = 0;
    struct timespec timeout = {timeout_ns / NS_PER_S, timeout_ns % NS_PER_S};
    if (ppoll(watch->polled, (nfds_t)watch->count, &timeout, NULL) < 0 && errno != EINTR)
        die("ppoll: %s", strerror(errno));
    for (int at = 0; at < watch->count; at++)
        watch->ready[at] = (watch->polled[at].revents & POLLIN) != 0;
}

/* Receive a frame; false when there is none now. The frame must be closed. */
HELPER bool take(zmq_msg_t *frame, void *socket) {
    zmq_msg_init(frame);
    if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) >= 0)
        return true;
    int code = zmq_errno();
    zmq_msg_close(frame);
    if (code != EAGAIN && code != EINTR)
        die("recv: %s", zmq_strerror(code));
    return false;
}

/* Receive the rest of a message into `frames`, which has room for `room`; returns how many came. Frames beyond
 * the room are read and dropped, but counted. */
HELPER int take_rest(zmq_msg_t *frames, int room, void *socket, bool more) {
    int count = 0;
    while (more) {
        zmq_msg_t surplus;
        zmq_msg_t *frame = count < room ? &frames[count] : &surplus;
        if (!take(frame, socket))
            die("a message broke off");
        more = zmq_msg_more(frame) != 0;
        if (frame == &surplus)
            zmq_msg_close(frame);
        count++;
    }
    return count;
}

HELPER void close_frames(zmq_msg_t *frames, int count, int room) {
    for (int at = 0; at < count && at < room; at++)
        zmq_msg_close(&frames[at]);
}

HELPER void keep(void *data, void *hint) {
    (void)data;
    (void)hint;
}

/* Send a frame. From 8 KiB up it is not copied: `data` must then stay as it is for good. */
HELPER void give(void *socket, const void *data, size_t length, bool more) {
    int flags = more ? ZMQ_SNDMORE : 0;
    if (length < 8192) {
        must(zmq_send(socket, data, length, flags), "send");
        return;
    }
    zmq_msg_t frame;
    must(zmq_msg_init_data(&frame, (void *)(uintptr_t)data, length, keep, NULL), "msg_init_data");
    must(zmq_msg_send(&frame, socket, flags), "send");
}

HELPER void precise_timers(void) { prctl(PR_SET_TIMERSLACK, 1UL); }

#endif
