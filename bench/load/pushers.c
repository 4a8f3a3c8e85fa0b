#include "pushers.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 1024, ANSWER_BYTES = 8192 };
static const double RUN_TIMEOUT_S = 120, FAN_TIMEOUT_S = 60, OPEN_TIMEOUT_S = 10;

struct pusher {
    enum peer peer;
    int fd;
    int is_open;
    double sent_at;
    int answer_size;
    char answer[ANSWER_BYTES];
};

static void open_one(struct pusher *who, int port, int epoll) {
    who->peer = PUSHER;
    who->fd = dial(port, -1);
    struct pollfd ready = {.fd = who->fd, .events = POLLOUT};
    if (poll(&ready, 1, (int)(OPEN_TIMEOUT_S * 1000)) != 1 || !is_connected(who->fd)) give_up("no admin port");
    watch(epoll, EPOLL_CTL_ADD, who->fd, EPOLLIN, who);
}

void open_pushers(struct pushers *p, struct subscribers *s, int count) {
    if (p->all) give_up("pushers are open already");
    if (count < 1 || count > 1024) give_up("1 to 1024 pushers");
    p->all = calloc(count, sizeof *p->all);
    if (!p->all) die("calloc");
    p->count = count;
    for (int i = 0; i < count; i++) open_one(&p->all[i], p->port, s->epoll);
}

/* Small pushes fit the socket's buffer; a large one waits, and the server must not depend on our reading meanwhile. */
static void send_all(int fd, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) die("push");
        if (sent < 0) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            if (poll(&ready, 1, 10000) != 1) give_up("the server does not read a push");
            continue;
        }
        bytes += sent;
        size -= sent;
    }
}

static void post(struct pusher *who, const char *target, const char *body, size_t size) {
    char head[512];
    int head_size = snprintf(head, sizeof head,
                             "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                             "Content-Length: %zu\r\n\r\n",
                             target, size);
    char *request = malloc(head_size + size);
    if (!request) die("malloc");
    memcpy(request, head, head_size);
    memcpy(request + head_size, body, size);
    who->answer_size = 0;
    who->sent_at = now_s();
    send_all(who->fd, request, head_size + size);
    free(request);
}

/* The body of a complete answer, NULL when more is to come. The protocol promises a Content-Length. */
static const char *body_of(const struct pusher *who) {
    const char *head_end = strstr(who->answer, "\r\n\r\n");
    if (!head_end) return NULL;
    const char *length = strcasestr(who->answer, "content-length:");
    if (!length || length > head_end) give_up("an answer without Content-Length");
    const char *body = head_end + 4;
    return who->answer + who->answer_size >= body + atoi(length + 15) ? body : NULL;
}

/* Reads what is there: the body when the answer is complete, else NULL. */
static const char *read_answer(struct pusher *who) {
    ssize_t size = recv(who->fd, who->answer + who->answer_size, ANSWER_BYTES - 1 - who->answer_size, 0);
    if (size < 0 && errno == EAGAIN) return NULL;
    if (size <= 0) give_up("the server closed a push connection, or its answer is too long");
    who->answer_size += size;
    who->answer[who->answer_size] = 0;
    return body_of(who);
}

static int is_success(const struct subscribers *s, const struct pusher *who, const char *body) {
    if (s->is_nchan) return !strncmp(who->answer, "HTTP/1.1 201 ", 13);
    return strstr(body, "\"ret\":0") && !strstr(body, "\"fk\"");
}

static void push_one(struct pushers *p, struct subscribers *s, struct pusher *who, int expire_s) {
    char key[48], target[128], payload[64];
    key_of(s, (int)(who - p->all) % s->count, key);
    snprintf(target, sizeof target, "/1/admin/push/private?key=%s&expire=%d", key, expire_s);
    const char *form = s->is_nchan ? "{\"msg\":{\"t\":%.0f},\"mid\":0,\"gid\":0}" : "{\"t\":%.0f}";
    int size = snprintf(payload, sizeof payload, form, (now_s() - s->base) * 1e9);
    post(who, target, payload, size);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void begin_timing(struct subscribers *s, struct push_result *result) {
    s->messages = 0;
    s->latency_count = 0;
    s->latency_capacity = result->pushes;
    s->latencies = calloc(result->pushes, sizeof(double));
    result->answer_s = calloc(result->pushes, sizeof(double));
    if (!s->latencies || !result->answer_s) die("calloc");
    s->base = now_s();
}

static void end_timing(struct subscribers *s, struct push_result *result) {
    result->seconds = now_s() - s->base;
    result->delivered = s->messages;
    result->delivery_s = s->latencies;
    result->deliveries = s->latency_count;
    s->latencies = NULL;
    qsort(result->answer_s, result->answers, sizeof(double), ascending);
    qsort(result->delivery_s, result->deliveries, sizeof(double), ascending);
}

/* Takes an answer if it is complete; whether it was. */
static int take_answer(const struct subscribers *s, struct pusher *who, struct push_result *result) {
    const char *body = read_answer(who);
    if (!body) return 0;
    result->answer_s[result->answers++] = now_s() - who->sent_at;
    if (!is_success(s, who, body)) {
        if (!result->failed++) fprintf(stderr, "a push failed: %s\n", body);
    }
    return 1;
}

struct push_result push_many(struct pushers *p, struct subscribers *s, long pushes, int expire_s) {
    struct push_result result = {.pushes = pushes};
    struct epoll_event events[BATCH];
    long begun = 0;
    if (!p->count || !s->count) give_up("a push needs pushers and subscribers");
    begin_timing(s, &result);
    for (int i = 0; i < p->count && begun < pushes; i++, begun++) push_one(p, s, &p->all[i], expire_s);
    double end = now_s() + RUN_TIMEOUT_S;
    while (result.answers < pushes || s->messages < pushes - result.failed) {
        if (now_s() > end) break;
        int count = wait_awake(s->epoll, events, BATCH, 1);
        for (int i = 0; i < count; i++) {
            struct pusher *who = events[i].data.ptr;
            if (who->peer == SUBSCRIBER) {
                on_subscriber(s, events[i].data.ptr, events[i].events);
            } else if (take_answer(s, who, &result) && begun < pushes) {
                push_one(p, s, who, expire_s);
                begun++;
            }
        }
    }
    end_timing(s, &result);
    return result;
}

void free_result(struct push_result *result) {
    free(result->answer_s);
    free(result->delivery_s);
}

/* The body {"m":"...","k":"key,key,..."}, for nchan the message; freed by the caller. */
static char *body_for_all(const struct subscribers *s, size_t *size) {
    char *body = malloc((size_t)s->count * 48 + 64);
    if (!body) die("malloc");
    if (s->is_nchan) {
        *size = sprintf(body, "{\"msg\":{\"test\":1},\"mid\":0,\"gid\":0}");
        return body;
    }
    char *at = body + sprintf(body, "{\"m\":\"{\\\"test\\\":1}\",\"k\":\"");
    for (int i = 0; i < s->count; i++) {
        if (i) *at++ = ',';
        at += key_of(s, i, at);
    }
    at += sprintf(at, "\"}");
    *size = at - body;
    return body;
}

struct fan_result push_to_all(struct pushers *p, struct subscribers *s, int expire_s) {
    struct fan_result result = {0};
    struct epoll_event events[BATCH];
    char target[64];
    size_t size;
    if (!p->count || !s->count) give_up("a push needs a pusher and subscribers");
    char *body = body_for_all(s, &size);
    snprintf(target, sizeof target, "/1/admin/push/mprivate?expire=%d", expire_s);
    s->messages = 0;
    double began = now_s();
    post(&p->all[0], target, body, size);
    free(body);
    int is_answered = 0;
    while ((!is_answered || s->messages < s->live) && now_s() < began + FAN_TIMEOUT_S) {
        int count = wait_awake(s->epoll, events, BATCH, 1);
        for (int i = 0; i < count; i++) {
            struct pusher *who = events[i].data.ptr;
            const char *answer;
            if (who->peer == SUBSCRIBER) {
                on_subscriber(s, events[i].data.ptr, events[i].events);
            } else if ((answer = read_answer(who))) {
                is_answered = 1;
                result.is_ok = is_success(s, who, answer);
                if (!result.is_ok) fprintf(stderr, "the push failed: %.200s\n", answer);
                result.answered_s = now_s() - began;
            }
        }
    }
    result.delivered = s->messages;
    result.last_s = s->last_message_at - began;
    return result;
}
