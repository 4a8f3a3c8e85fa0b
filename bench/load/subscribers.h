/* Very many subscribers of the push server, each with its own key: opens them, counts what they receive. */
#ifndef SUBSCRIBERS_H
#define SUBSCRIBERS_H

#include "common.h"

/* First member of everything that epoll points to. */
enum peer { SUBSCRIBER, PUSHER };

enum subscriber_state { CONNECTING, SUBSCRIBING, LIVE, ENDED };

struct subscriber {
    enum peer peer;
    int fd;
    /* Number of its key. */
    int id;
    uint8_t state; /* enum subscriber_state */
    /* Bytes of a heartbeat line and of a message's end that the last bytes read match: both may span reads. */
    uint8_t line_matched, end_matched;
};

struct subscribers {
    int epoll;
    int port;
    int is_ws;
    /* The server is nginx with nchan: it greets nobody, and delivers a push as it is. */
    int is_nchan;
    /* The keys are this text and a number from 0 on. */
    char prefix[32];
    /* Port by number of the key, where the keys live on several nodes; else NULL. */
    int *ports, port_count;
    struct subscriber *all;
    int count;
    /* Subscribed now; closed by the server before that, and after. */
    int live, refused, lost;
    long messages, heartbeats;
    /* When the last message was complete, now_s(). */
    double last_message_at;
    /* Payloads {"t":NANOSECONDS since `base`} are timed when `latencies` is set. */
    double base, *latencies;
    long latency_count, latency_capacity;
};

/* Reads a port for each key from a file, one a line: subscribers go there instead of to `port`. */
void read_ports(struct subscribers *s, const char *path);

/* Opens `count` subscribers, at most `window` of them on their way at a time; ends the program after 120 s. */
void open_subscribers(struct subscribers *s, int count, int window);

/* Closes all of them at once, without leaving TIME_WAIT behind. */
void close_subscribers(struct subscribers *s);

/* Writes the key of a number to `key` (at least 48 bytes); its length. */
int key_of(const struct subscribers *s, int id, char *key);

/* Every live subscriber sends a heartbeat. */
void beat_all(struct subscribers *s);

/* Handles what epoll reported for one. */
void on_subscriber(struct subscribers *s, struct subscriber *who, uint32_t events);

/* Handles the subscribers' events until `messages` have come since the count was set to 0, `heartbeats` likewise
 * (0 = of no interest), or until the time is over. Pushers must have nothing in flight. */
void pump(struct subscribers *s, long messages, long heartbeats, double seconds);

#endif
