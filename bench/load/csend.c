/* csend: what the least possible server costs on this machine, to compare with: it accepts subscribers, answers
 * the handshake, and on command sends one frame to each of them in a loop of send(). It keeps no state but the
 * descriptors. Loopback only, one thread, epoll.
 *
 *   csend tcp|ws
 *
 * Prints {"port":N}, then answers commands on stdin with one JSON object each:
 *
 *   send ROUNDS   the frame to every subscriber, ROUNDS times; CPU of the loop alone, in microseconds
 */
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1024, BACKLOG = 4096 };

/* As the push server sends it for the payload {"test":1}. */
#define MESSAGE "{\"msg\":{\"test\":1},\"mid\":17600000000000000,\"gid\":0}"
static const char TCP_FRAME[] = "$50\r\n" MESSAGE "\r\n";
static const char WS_FRAME[] = "\x81\x32" MESSAGE;
static const char TCP_HELLO[] = "+h\r\n";
/* The accept value belongs to the nonce that load always sends. */
static const char WS_HELLO[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x04+h\r\n";

struct server {
    int epoll, listener;
    const char *hello, *frame;
    size_t hello_size, frame_size;
    /* Descriptors that have subscribed, in order of arrival; is_subscribed is by descriptor. */
    int subscribed[MAX_SOCKETS], count;
    uint8_t is_subscribed[MAX_SOCKETS + 1024];
};

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int listen_anywhere(int *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, BACKLOG)) die("listen");
    if (getsockname(fd, (struct sockaddr *)&at, &size)) die("getsockname");
    *port = ntohs(at.sin_port);
    return fd;
}

/* epoll tells descriptors apart by number here: data.fd. */
static void watch_fd(struct server *s, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void accept_all(struct server *s) {
    int one = 1, fd;
    while ((fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= (int)sizeof s->is_subscribed) give_up("too many connections");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        s->is_subscribed[fd] = 0;
        watch_fd(s, fd);
    }
}

static void forget(struct server *s, int fd) {
    for (int i = 0; i < s->count && s->is_subscribed[fd]; i++) {
        if (s->subscribed[i] != fd) continue;
        s->subscribed[i] = s->subscribed[--s->count];
        s->is_subscribed[fd] = 0;
    }
    close(fd);
}

static void answer(struct server *s, int fd) {
    char request[4096];
    ssize_t size = recv(fd, request, sizeof request, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        forget(s, fd);
    } else if (!s->is_subscribed[fd] && s->count < MAX_SOCKETS) {
        s->is_subscribed[fd] = 1;
        s->subscribed[s->count++] = fd;
        if (send(fd, s->hello, s->hello_size, MSG_NOSIGNAL) < 0) die("hello");
    }
}

static void send_rounds(struct server *s, int rounds) {
    double began = cpu_s();
    long short_writes = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < s->count; i++) {
            ssize_t sent = send(s->subscribed[i], s->frame, s->frame_size, MSG_NOSIGNAL | MSG_DONTWAIT);
            short_writes += sent != (ssize_t)s->frame_size;
        }
    }
    printf("{\"subscribers\":%d,\"short_writes\":%ld,\"cpu_us\":%.1f}\n", s->count, short_writes,
           (cpu_s() - began) * 1e6);
}

/* Whether there will be more commands. Read without stdio's buffer, which epoll would not see. */
static int obey(struct server *s) {
    char line[64];
    int rounds;
    ssize_t size = read(STDIN_FILENO, line, sizeof line - 1);
    if (size <= 0) return 0;
    line[size] = 0;
    if (sscanf(line, "send %d", &rounds) != 1) give_up("unknown command; see the head of csend.c");
    send_rounds(s, rounds);
    return 1;
}

static void serve(struct server *s) {
    struct epoll_event events[BATCH];
    for (;;) {
        int count = epoll_wait(s->epoll, events, BATCH, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == s->listener) accept_all(s);
            else if (fd != STDIN_FILENO) answer(s, fd);
            else if (!obey(s)) return;
        }
    }
}

int main(int argc, char **argv) {
    static struct server server;
    int port;
    if (argc != 2) give_up("usage: csend tcp|ws");
    int is_ws = !strcmp(argv[1], "ws");
    raise_descriptor_limit();
    setvbuf(stdout, NULL, _IOLBF, 0);
    server.hello = is_ws ? WS_HELLO : TCP_HELLO;
    server.hello_size = is_ws ? sizeof WS_HELLO - 1 : sizeof TCP_HELLO - 1;
    server.frame = is_ws ? WS_FRAME : TCP_FRAME;
    server.frame_size = is_ws ? sizeof WS_FRAME - 1 : sizeof TCP_FRAME - 1;
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    server.listener = listen_anywhere(&port);
    watch_fd(&server, server.listener);
    watch_fd(&server, STDIN_FILENO);
    printf("{\"port\":%d}\n", port);
    serve(&server);
    return 0;
}
