/* VB1, the voicebus protocol, as far as the benchmark's ends speak it; docs/protocol.md is the text.
 *
 * Messages are written into an outlet, which sends them at once or, if its end speaks in bundles, piles them
 * up until it is flushed: one bundle for all that goes out in one pass over a socket.
 */
#ifndef VOICEBUS_BENCH_VB1_H
#define VOICEBUS_BENCH_VB1_H

#include "ends.h"

enum {
    SUBMIT = 0x01, ACCEPTED = 0x02, STARTED = 0x03, CHUNK = 0x04, DONE = 0x05, FAILED = 0x06, CANCEL = 0x07,
    PING = 0x08, PONG = 0x09, BUNDLE = 0x0D, SPOKEN = 0x0E,
    READY = 0x20, WELCOME = 0x21, HEARTBEAT = 0x22, JOB = 0x23, DRAIN = 0x25, DRAINED = 0x26, GOODBYE = 0x27,
    REREGISTER = 0x28,
};
enum { SEGMENT_END = 0x0002 };
enum { ENVELOPE_BYTES = 32, MAX_PAYLOAD_BYTES = 256 * 1024 };
enum { MAX_BUNDLED = 256, BUNDLED_BELOW_BYTES = 8192, MAX_HEADER_BYTES = 256 };

HELPER void put_be(uint8_t *at, uint64_t value, int bytes) {
    for (int byte = bytes - 1; byte >= 0; byte--, value >>= 8)
        at[byte] = (uint8_t)value;
}

HELPER uint64_t get_be(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int byte = 0; byte < bytes; byte++)
        value = value << 8 | at[byte];
    return value;
}

/* `job` is 16 bytes, or NULL where no job is meant. */
HELPER void write_envelope(
    uint8_t *at, int kind, const uint8_t *job, unsigned attempt, unsigned flags, uint32_t sequence, uint32_t value
) {
    memcpy(at, "VB1", 3);
    at[3] = (uint8_t)kind;
    if (job == NULL)
        memset(at + 4, 0, 16);
    else
        memcpy(at + 4, job, 16);
    put_be(at + 20, attempt, 2);
    put_be(at + 22, flags, 2);
    put_be(at + 24, sequence, 4);
    put_be(at + 28, value, 4);
}

/* A MessagePack array being written, item by item. */
typedef struct {
    uint8_t bytes[MAX_HEADER_BYTES];
    size_t used;
} header_t;

HELPER void pack_raw(header_t *header, const void *data, size_t length) {
    if (header->used + length > MAX_HEADER_BYTES)
        die("a header of more than %d bytes", MAX_HEADER_BYTES);
    memcpy(header->bytes + header->used, data, length);
    header->used += length;
}

HELPER void pack_array(header_t *header, unsigned items) {
    uint8_t mark = (uint8_t)(0x90 | (items & 0x0F));
    pack_raw(header, &mark, 1);
}

HELPER void pack_text(header_t *header, const char *text) {
    size_t length = strlen(text);
    if (length > 31)
        die("\"%s\" is too long", text);
    uint8_t mark = (uint8_t)(0xA0 | length);
    pack_raw(header, &mark, 1);
    pack_raw(header, text, length);
}

HELPER void pack_number(header_t *header, uint64_t value) {
    uint8_t bytes[9] = {0xCF};
    if (value < 128) {
        bytes[0] = (uint8_t)value;
        pack_raw(header, bytes, 1);
    } else if (value <= UINT32_MAX) {
        bytes[0] = 0xCE;
        put_be(bytes + 1, value, 4);
        pack_raw(header, bytes, 5);
    } else {
        put_be(bytes + 1, value, 8);
        pack_raw(header, bytes, 9);
    }
}

/* Read the string, or the number, at the front of a header and return how many bytes it took; 0 if it is none
 * or does not fit. `text` has room for `room` bytes with the zero at its end. */
HELPER size_t unpack_text(const uint8_t *at, size_t left, char *text, size_t room) {
    size_t begin = 1, length;
    if (left >= 1 && (at[0] & 0xE0) == 0xA0) {
        length = at[0] & 0x1F;
    } else if (left >= 2 && at[0] == 0xD9) {
        length = at[1];
        begin = 2;
    } else {
        return 0;
    }
    if (begin + length > left || length + 1 > room)
        return 0;
    memcpy(text, at + begin, length);
    text[length] = '\0';
    return begin + length;
}

HELPER size_t unpack_number(const uint8_t *at, size_t left, uint64_t *value) {
    if (left >= 1 && at[0] < 0x80) {
        *value = at[0];
        return 1;
    }
    if (left < 1 || at[0] < 0xCC || at[0] > 0xCF)
        return 0;
    int bytes = 1 << (at[0] - 0xCC);
    if (left < 1 + (size_t)bytes)
        return 0;
    *value = get_be(at + 1, bytes);
    return 1 + (size_t)bytes;
}

/* A MessagePack array of 16 bits' length, with a bin for each frame: what a bundle's payload is. */
enum { ARRAY_BYTES = 3, BIN_BYTES = 5 };

/* What goes out on one socket. */
typedef struct {
    void *socket;
    bool bundling, announced; /* announced: the other side has been shown a bundle */
    unsigned piled, frames;
    size_t used;
    uint8_t *pile;
    uint64_t bundles, bundled;
} outlet_t;

HELPER void outlet_open(outlet_t *outlet, void *socket, bool bundling) {
    *outlet = (outlet_t){.socket = socket, .bundling = bundling};
    outlet->used = ARRAY_BYTES;
    if (bundling)
        outlet->pile = grown(NULL, MAX_PAYLOAD_BYTES);
}

HELPER void outlet_send(
    outlet_t *outlet, const uint8_t *envelope, const uint8_t *header, size_t header_bytes, const uint8_t *payload,
    size_t payload_bytes
) {
    give(outlet->socket, envelope, ENVELOPE_BYTES, header_bytes + payload_bytes > 0);
    if (header_bytes > 0)
        give(outlet->socket, header, header_bytes, payload_bytes > 0);
    if (payload_bytes > 0)
        give(outlet->socket, payload, payload_bytes, false);
}

HELPER void pile_frame(outlet_t *outlet, const void *frame, size_t bytes) {
    uint8_t *at = outlet->pile + outlet->used;
    int width = bytes < 256 ? 1 : bytes < 65536 ? 2 : 4;
    at[0] = width == 1 ? 0xC4 : width == 2 ? 0xC5 : 0xC6;
    put_be(at + 1, bytes, width);
    if (bytes > 0)
        memcpy(at + 1 + width, frame, bytes);
    outlet->used += 1 + (size_t)width + bytes;
    outlet->frames++;
}

/* Read one bin; the place behind it. */
HELPER size_t frame_at(const uint8_t *data, size_t at, size_t length, const uint8_t **frame, size_t *bytes) {
    if (at >= length || data[at] < 0xC4 || data[at] > 0xC6)
        die("a bundle broke off");
    size_t width = (size_t)1 << (data[at] - 0xC4);
    if (at + 1 + width > length)
        die("a bundle broke off");
    *bytes = get_be(data + at + 1, (int)width);
    *frame = data + at + 1 + width;
    at += 1 + width + *bytes;
    if (at > length)
        die("a bundle broke off");
    return at;
}

HELPER void outlet_flush(outlet_t *outlet) {
    if (outlet->piled == 0)
        return;
    if (outlet->piled == 1 && outlet->announced) {
        /* A bundle of one costs more than the message. */
        size_t at = ARRAY_BYTES;
        for (unsigned left = outlet->frames; left > 0; left--) {
            const uint8_t *frame;
            size_t bytes;
            at = frame_at(outlet->pile, at, outlet->used, &frame, &bytes);
            give(outlet->socket, frame, bytes, left > 1);
        }
    } else {
        uint8_t envelope[ENVELOPE_BYTES];
        write_envelope(envelope, BUNDLE, NULL, 0, 0, 0, outlet->piled);
        must(zmq_send(outlet->socket, envelope, ENVELOPE_BYTES, ZMQ_SNDMORE), "send");
        outlet->pile[0] = 0xDC;
        put_be(outlet->pile + 1, outlet->frames, 2);
        /* Copied: the pile is written again at once. */
        must(zmq_send(outlet->socket, outlet->pile, outlet->used, 0), "send");
        outlet->bundles++;
        outlet->bundled += outlet->piled;
        outlet->announced = true;
    }
    outlet->piled = outlet->frames = 0;
    outlet->used = ARRAY_BYTES;
}

/* Send a message, or pile it up. A payload from 8 KiB up must stay as it is for good. */
HELPER void outlet_put(
    outlet_t *outlet, const uint8_t *envelope, const header_t *header, const uint8_t *payload, size_t payload_bytes
) {
    size_t header_bytes = header == NULL ? 0 : header->used;
    const uint8_t *header_at = header == NULL ? NULL : header->bytes;
    if (!outlet->bundling || payload_bytes >= BUNDLED_BELOW_BYTES || envelope[3] == HEARTBEAT) {
        outlet_flush(outlet);
        outlet_send(outlet, envelope, header_at, header_bytes, payload, payload_bytes);
        return;
    }
    size_t bytes = ENVELOPE_BYTES + header_bytes + payload_bytes + 3 * BIN_BYTES;
    if (outlet->piled == MAX_BUNDLED || outlet->used + bytes > MAX_PAYLOAD_BYTES)
        outlet_flush(outlet);
    pile_frame(outlet, envelope, ENVELOPE_BYTES);
    if (header != NULL)
        pile_frame(outlet, header_at, header_bytes);
    if (payload != NULL)
        pile_frame(outlet, payload, payload_bytes);
    outlet->piled++;
}

/* One message as it came, alone or out of a bundle. */
typedef struct {
    const uint8_t *envelope, *header, *payload;
    size_t header_bytes, payload_bytes;
} vb1_t;

typedef void vb1_handler(void *context, const vb1_t *message);

/* How many frames a message of this kind has behind its envelope: the kind tells in which. */
HELPER int frames_behind(int kind) {
    switch (kind) {
    case SUBMIT:
    case JOB:
    case SPOKEN:
        return 2;
    case ACCEPTED:
    case STARTED:
    case CHUNK:
    case DONE:
    case FAILED:
    case WELCOME:
        return 1;
    default:
        return 0;
    }
}

HELPER void unbundle(const uint8_t *data, size_t length, vb1_handler *handle, void *context) {
    if (length == 0)
        die("a bundle of nothing");
    /* fixarray, array 16 or array 32: the frames themselves say how many there are */
    size_t at = (data[0] & 0xF0) == 0x90 ? 1 : data[0] == 0xDC ? 3 : 5;
    while (at < length) {
        vb1_t message = {0};
        size_t bytes;
        at = frame_at(data, at, length, &message.envelope, &bytes);
        if (bytes != ENVELOPE_BYTES)
            die("a bundle broke off");
        int kind = message.envelope[3], behind = frames_behind(kind);
        if (behind > 0 && kind != CHUNK)
            at = frame_at(data, at, length, &message.header, &message.header_bytes);
        if (behind == 2 || kind == CHUNK)
            at = frame_at(data, at, length, &message.payload, &message.payload_bytes);
        handle(context, &message);
    }
}

/* Receive one ZeroMQ message and hand on what is in it: how many VB1 messages that were, 0 if nothing is there. */
HELPER int vb1_take(void *socket, vb1_handler *handle, void *context) {
    zmq_msg_t first, rest[2];
    if (!take(&first, socket))
        return 0;
    int count = take_rest(rest, 2, socket, zmq_msg_more(&first) != 0);
    vb1_t message = {.envelope = zmq_msg_data(&first)};
    if (zmq_msg_size(&first) != ENVELOPE_BYTES || memcmp(message.envelope, "VB1", 3) != 0 || count > 2)
        die("this is not VB1");
    int messages = 1;
    if (message.envelope[3] == BUNDLE) {
        if (count != 1)
            die("a bundle of %d frames", 1 + count);
        messages = (int)get_be(message.envelope + 28, 4);
        unbundle(zmq_msg_data(&rest[0]), zmq_msg_size(&rest[0]), handle, context);
    } else {
        int payload_at = message.envelope[3] == CHUNK ? 0 : 1;
        if (count > 0 && payload_at == 1) {
            message.header = zmq_msg_data(&rest[0]);
            message.header_bytes = zmq_msg_size(&rest[0]);
        }
        if (count > payload_at) {
            message.payload = zmq_msg_data(&rest[payload_at]);
            message.payload_bytes = zmq_msg_size(&rest[payload_at]);
        }
        handle(context, &message);
    }
    close_frames(rest, count, 2);
    zmq_msg_close(&first);
    return messages;
}

#endif
