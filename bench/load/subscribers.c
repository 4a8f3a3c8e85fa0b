#include "subscribers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 1024, PER_SOURCE = 1000 };
static const double OPEN_TIMEOUT_S = 120;

/* The example nonce of RFC 6455: what the server answers does not matter to a load client. */
static const char WS_REQUEST[] =
    "GET /sub?key=%s&heartbeat=3000&ver=1.0 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Origin: http://127.0.0.1/\r\n\r\n";
static const char TCP_REQUEST[] = "*5\r\n$3\r\nsub\r\n$%zu\r\n%s\r\n$4\r\n3000\r\n$0\r\n\r\n$3\r\n1.0\r\n";
/* `h` as a final text frame with the mask 1 2 3 4. */
static const char WS_BEAT[] = {'\x81', '\x81', 1, 2, 3, 4, 'h' ^ 1};

static const char HEARTBEAT_LINE[] = "+h\r\n";
/* Of nchan's answer to an upgrade that it accepts; nothing else follows until there is a message. */
static const char ACCEPTED[] = "HTTP/1.1 101 ";
/* Every message ends like this, whatever the framing. */
static const char MESSAGE_END[] = "\"gid\":0}";

int key_of(const struct subscribers *s, int id, char *key) {
    return sprintf(key, "%s%d", s->prefix, id);
}

static void begin(struct subscribers *s, struct subscriber *who, int id) {
    who->peer = SUBSCRIBER;
    who->id = id;
    who->fd = dial(s->ports ? s->ports[id] : s->port, id / PER_SOURCE);
    who->state = CONNECTING;
    watch(s->epoll, EPOLL_CTL_ADD, who->fd, EPOLLIN | EPOLLOUT, who);
}

static void subscribe(struct subscribers *s, struct subscriber *who) {
    char key[48], request[512];
    key_of(s, who->id, key);
    int size = s->is_ws ? snprintf(request, sizeof request, WS_REQUEST, key)
                        : snprintf(request, sizeof request, TCP_REQUEST, strlen(key), key);
    if (send(who->fd, request, size, MSG_NOSIGNAL) != size) die("subscribe");
    who->state = SUBSCRIBING;
    watch(s->epoll, EPOLL_CTL_MOD, who->fd, EPOLLIN, who);
}

static void ended(struct subscribers *s, struct subscriber *who) {
    close(who->fd);
    if (who->state == LIVE) {
        s->live--;
        s->lost++;
    } else {
        s->refused++;
    }
    who->state = ENDED;
}

/* Whether `c` completes the text. On a mismatch only a fresh start is tried: enough for texts like ours,
 * whose first byte does not occur inside the part that can be matched wrongly. */
static int completes(const char *text, uint8_t *matched, char c) {
    if (c != text[*matched]) *matched = 0;
    if (c == text[*matched]) (*matched)++;
    if (text[*matched]) return 0;
    *matched = 0;
    return 1;
}

static void count_heartbeat(struct subscribers *s, struct subscriber *who) {
    if (who->state == SUBSCRIBING) {
        who->state = LIVE;
        s->live++;
    } else {
        s->heartbeats++;
    }
}

static void count(struct subscribers *s, struct subscriber *who, const char *bytes, ssize_t size) {
    const char *greeting = s->is_nchan ? ACCEPTED : HEARTBEAT_LINE;
    for (ssize_t i = 0; i < size; i++) {
        if (completes(greeting, &who->line_matched, bytes[i])) count_heartbeat(s, who);
        if (completes(MESSAGE_END, &who->end_matched, bytes[i])) {
            s->messages++;
            s->last_message_at = now_s();
        }
    }
}

/* The server writes a message at once and loopback does not split small ones, so a time is never cut in two. */
static void time_messages(struct subscribers *s, const char *text) {
    for (const char *at = text; (at = strstr(at, "\"t\":")); at += 4) {
        if (s->latency_count == s->latency_capacity) return;
        s->latencies[s->latency_count++] = now_s() - s->base - atof(at + 4) * 1e-9;
    }
}

static void receive(struct subscribers *s, struct subscriber *who) {
    static char bytes[1 << 16];
    ssize_t size;
    do {
        size = recv(who->fd, bytes, sizeof bytes - 1, 0);
        if (size < 0 && errno == EAGAIN) return;
        if (size <= 0) {
            ended(s, who);
            return;
        }
        bytes[size] = 0;
        count(s, who, bytes, size);
        if (s->latencies) time_messages(s, bytes);
    } while (size == sizeof bytes - 1);
}

void on_subscriber(struct subscribers *s, struct subscriber *who, uint32_t events) {
    if (who->state == ENDED) return;
    if (who->state != CONNECTING) {
        receive(s, who);
        return;
    }
    if (!is_connected(who->fd)) {
        ended(s, who);
    } else if (events & EPOLLOUT) {
        subscribe(s, who);
    }
}

static void handle_events(struct subscribers *s, double seconds) {
    struct epoll_event events[BATCH];
    int count = wait_awake(s->epoll, events, BATCH, seconds);
    for (int i = 0; i < count; i++) {
        struct subscriber *who = events[i].data.ptr;
        if (who->peer == SUBSCRIBER) on_subscriber(s, who, events[i].events);
        else give_up("a push connection ended, or was answered out of turn");
    }
}

void read_ports(struct subscribers *s, const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    s->ports = calloc(MAX_SOCKETS, sizeof *s->ports);
    if (!s->ports) die("calloc");
    while (s->port_count < MAX_SOCKETS && fscanf(file, "%d", &s->ports[s->port_count]) == 1) s->port_count++;
    fclose(file);
}

void open_subscribers(struct subscribers *s, int count, int window) {
    if (count < 1 || count > MAX_SOCKETS) give_up("too many subscribers for one process");
    if (s->ports && count > s->port_count) give_up("more subscribers than ports were told");
    s->all = calloc(count, sizeof *s->all);
    if (!s->all) die("calloc");
    s->count = count;
    s->live = s->refused = s->lost = 0;
    double end = now_s() + OPEN_TIMEOUT_S;
    for (int begun = 0; s->live + s->refused < count;) {
        while (begun < count && begun - s->live - s->refused < window) {
            begin(s, &s->all[begun], begun);
            begun++;
        }
        handle_events(s, 0.1);
        if (now_s() > end) give_up("subscribing took too long");
    }
}

void close_subscribers(struct subscribers *s) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    for (int i = 0; i < s->count; i++) {
        if (s->all[i].state == ENDED) continue;
        setsockopt(s->all[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(s->all[i].fd);
    }
    free(s->all);
    s->all = NULL;
    s->count = s->live = 0;
}

void beat_all(struct subscribers *s) {
    const char *beat = s->is_ws ? WS_BEAT : "h";
    ssize_t size = s->is_ws ? (ssize_t)sizeof WS_BEAT : 1;
    for (int i = 0; i < s->count; i++) {
        if (s->all[i].state == LIVE && send(s->all[i].fd, beat, size, MSG_NOSIGNAL) != size) die("heartbeat");
    }
}

void pump(struct subscribers *s, long messages, long heartbeats, double seconds) {
    double end = now_s() + seconds, left;
    while ((left = end - now_s()) > 0) {
        if (messages && s->messages >= messages) return;
        if (heartbeats && s->heartbeats >= heartbeats) return;
        handle_events(s, left);
    }
}
