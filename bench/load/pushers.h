/* Connections to the admin port, kept alive: each has one push in flight at a time. */
#ifndef PUSHERS_H
#define PUSHERS_H

#include "subscribers.h"

struct pushers {
    int port;
    struct pusher *all;
    int count;
};

/* What a run of pushes came to. */
struct push_result {
    long pushes, failed, delivered;
    double seconds;
    /* Seconds, `pushes` of each at most, ascending. Freed by free_result(). */
    double *answer_s, *delivery_s;
    long answers, deliveries;
};

struct fan_result {
    long delivered;
    int is_ok;
    double answered_s, last_s;
};

/* Opens `count` connections. */
void open_pushers(struct pushers *p, struct subscribers *s, int count);

/* `pushes` single pushes, one in flight per connection; connection i pushes to key i, modulo the subscribers. */
struct push_result push_many(struct pushers *p, struct subscribers *s, long pushes, int expire_s);

void free_result(struct push_result *result);

/* One push to the keys of all subscribers, on the first connection. */
struct fan_result push_to_all(struct pushers *p, struct subscribers *s, int expire_s);

#endif
