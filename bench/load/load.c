/* load: load client for the subscriber protocol and the admin HTTP API. Loopback only, one thread, epoll.
 *
 *   load tcp|ws|nchan SUBSCRIBER-PORT ADMIN-PORT KEY-PREFIX
 *
 * nchan: the same over WebSocket with nginx and its module nchan as the server, to compare with. Its configuration
 * gives it the paths of ours; `fan` is one push to a channel that all are subscribed to.
 *
 * While it waits for something it takes a whole core (see wait_awake()); between commands it sleeps.
 * It is driven by commands on stdin, one a line, and answers each with one JSON object on stdout, so that the
 * caller can read the server's CPU time and memory in between:
 *
 *   ports FILE               the port of each key, one a line, where not all subscribe at SUBSCRIBER-PORT
 *   open COUNT WINDOW        subscribe COUNT keys, WINDOW of them on their way at a time
 *   beat                     one heartbeat of every subscriber; waits for the answers
 *   receive COUNT TIMEOUT_S  count messages that someone else sends, until there are COUNT
 *   pushers COUNT            open COUNT keep-alive connections to the admin port
 *   push COUNT EXPIRE_S      COUNT single pushes, one in flight per pusher; waits for answers and deliveries
 *   fan EXPIRE_S             one mprivate to all keys; waits for the answer and the deliveries
 *   close                    reset all subscribers
 */
#include "pushers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double percentile_us(const double *sorted, long count, double p) {
    return count ? sorted[(long)(p * (count - 1))] * 1e6 : 0;
}

static void report_push(struct push_result *r) {
    printf("{\"pushes\":%ld,\"failed\":%ld,\"delivered\":%ld,\"seconds\":%.4f,"
           "\"answer_p50_us\":%.0f,\"answer_p99_us\":%.0f,\"delivery_p50_us\":%.0f,\"delivery_p99_us\":%.0f}\n",
           r->answers, r->failed, r->delivered, r->seconds, percentile_us(r->answer_s, r->answers, .5),
           percentile_us(r->answer_s, r->answers, .99), percentile_us(r->delivery_s, r->deliveries, .5),
           percentile_us(r->delivery_s, r->deliveries, .99));
    free_result(r);
}

static void do_open(struct subscribers *s, int count, int window) {
    double began = now_s();
    open_subscribers(s, count, window);
    printf("{\"live\":%d,\"refused\":%d,\"seconds\":%.4f}\n", s->live, s->refused, now_s() - began);
}

static void do_beat(struct subscribers *s) {
    s->heartbeats = 0;
    beat_all(s);
    pump(s, 0, s->live, 30);
    printf("{\"heartbeats\":%ld,\"lost\":%d}\n", s->heartbeats, s->lost);
}

static void do_receive(struct subscribers *s, long count, double timeout_s) {
    s->messages = 0;
    pump(s, count, 0, timeout_s);
    printf("{\"messages\":%ld,\"lost\":%d}\n", s->messages, s->lost);
}

static void do_fan(struct pushers *p, struct subscribers *s, int expire_s) {
    struct fan_result r = push_to_all(p, s, expire_s);
    printf("{\"delivered\":%ld,\"is_ok\":%s,\"answered_ms\":%.2f,\"last_ms\":%.2f,\"lost\":%d}\n", r.delivered,
           r.is_ok ? "true" : "false", r.answered_s * 1e3, r.last_s * 1e3, s->lost);
}

static void obey(const char *line, struct subscribers *s, struct pushers *p) {
    int a, b;
    long many;
    char path[200];
    if (sscanf(line, "ports %199s", path) == 1) {
        read_ports(s, path);
        printf("{\"ports\":%d}\n", s->port_count);
    } else if (sscanf(line, "open %d %d", &a, &b) == 2) {
        do_open(s, a, b);
    } else if (!strncmp(line, "beat", 4)) {
        do_beat(s);
    } else if (sscanf(line, "receive %ld %d", &many, &a) == 2) {
        do_receive(s, many, a);
    } else if (sscanf(line, "pushers %d", &a) == 1) {
        open_pushers(p, s, a);
        printf("{\"pushers\":%d}\n", a);
    } else if (sscanf(line, "push %ld %d", &many, &a) == 2) {
        struct push_result r = push_many(p, s, many, a);
        report_push(&r);
    } else if (sscanf(line, "fan %d", &a) == 1) {
        do_fan(p, s, a);
    } else if (!strncmp(line, "close", 5)) {
        close_subscribers(s);
        printf("{\"live\":0}\n");
    } else {
        give_up("unknown command; see the head of load.c");
    }
}

int main(int argc, char **argv) {
    char line[256];
    if (argc != 5 || strlen(argv[4]) > 24) give_up("usage: load tcp|ws|nchan SUBSCRIBER-PORT ADMIN-PORT KEY-PREFIX");
    raise_descriptor_limit();
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct subscribers subscribers = {
        .epoll = epoll_create1(EPOLL_CLOEXEC),
        .port = atoi(argv[2]),
        .is_ws = strcmp(argv[1], "tcp") != 0,
        .is_nchan = !strcmp(argv[1], "nchan"),
    };
    struct pushers pushers = {.port = atoi(argv[3])};
    strcpy(subscribers.prefix, argv[4]);
    while (read_command(line, sizeof line)) obey(line, &subscribers, &pushers);
    return 0;
}
