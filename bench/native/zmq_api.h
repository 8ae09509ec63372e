/* The part of libzmq's C interface that the native benchmark uses.
 *
 * Everyone who is compared must run on the same libzmq, which is the one inside pyzmq's wheel. That wheel
 * brings no header, so the functions are declared here, as libzmq's manual pages give them; the ABI has been
 * stable since 4.0. Nothing needs to be installed but a C compiler.
 */
#ifndef VOICEBUS_BENCH_ZMQ_API_H
#define VOICEBUS_BENCH_ZMQ_API_H

#include <stddef.h>

typedef union {
    unsigned char opaque[64];
    void *alignment;
} zmq_msg_t;

enum { ZMQ_DEALER = 5, ZMQ_ROUTER = 6 };
enum { ZMQ_FD = 14, ZMQ_EVENTS = 15, ZMQ_LINGER = 17, ZMQ_BACKLOG = 19 };
enum { ZMQ_SNDHWM = 23, ZMQ_RCVHWM = 24, ZMQ_LAST_ENDPOINT = 32, ZMQ_ROUTER_MANDATORY = 33 };
enum { ZMQ_CURVE_PUBLICKEY = 48, ZMQ_CURVE_SECRETKEY = 49, ZMQ_CURVE_SERVERKEY = 50, Z85_KEY_BYTES = 41 };
enum { ZMQ_POLLIN = 1 };
enum { ZMQ_DONTWAIT = 1, ZMQ_SNDMORE = 2 };

typedef void zmq_free_fn(void *data, void *hint);

void *zmq_ctx_new(void);
void *zmq_socket(void *context, int type);
int zmq_setsockopt(void *socket, int option, const void *value, size_t length);
int zmq_getsockopt(void *socket, int option, void *value, size_t *length);
int zmq_bind(void *socket, const char *endpoint);
int zmq_connect(void *socket, const char *endpoint);
int zmq_send(void *socket, const void *data, size_t length, int flags);
int zmq_msg_init(zmq_msg_t *message);
int zmq_msg_init_size(zmq_msg_t *message, size_t length);
int zmq_msg_init_data(zmq_msg_t *message, void *data, size_t length, zmq_free_fn *free_fn, void *hint);
int zmq_msg_send(zmq_msg_t *message, void *socket, int flags);
int zmq_msg_recv(zmq_msg_t *message, void *socket, int flags);
int zmq_msg_move(zmq_msg_t *target, zmq_msg_t *source);
int zmq_msg_close(zmq_msg_t *message);
void *zmq_msg_data(zmq_msg_t *message);
size_t zmq_msg_size(const zmq_msg_t *message);
int zmq_msg_more(const zmq_msg_t *message);
int zmq_curve_keypair(char *public_key, char *secret_key);
int zmq_errno(void);
const char *zmq_strerror(int number);

#endif
