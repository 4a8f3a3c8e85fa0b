/* What the load client and the baseline server share. Loopback only; any failure of the machine ends the program. */
#ifndef COMMON_H
#define COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stddef.h>
#include <sys/epoll.h>

/* Sockets that one process here may hold: below the usual limit of 20,000 descriptors. */
enum { MAX_SOCKETS = 19500 };

/* Seconds of the monotonic clock. */
double now_s(void);

/* Says what failed and why (errno), ends the program. */
void die(const char *what);

/* Ends the program with a text of our own. */
void give_up(const char *why);

/* Takes as many descriptors as this process is allowed. */
void raise_descriptor_limit(void);

/* epoll_ctl that cannot fail. */
void watch(int epoll, int operation, int fd, uint32_t events, void *who);

/* As epoll_wait, but looks again and again instead of sleeping: waking a process that sleeps costs the sender, so a
 * client that sleeps between messages adds up to 10 us to the server's CPU for each, which subscribers on other
 * machines do not. */
int wait_awake(int epoll, struct epoll_event *events, int size, double seconds);

/* Begins a connection to 127.0.0.1:port. `source` >= 0 chooses one of 16 source addresses 127.0.0.2 and on:
 * connect() slows down beyond 14,000 connections from one address to one port. */
int dial(int port, int source);

/* Whether a connection that epoll reports writable is up; says why on stderr if it is not. */
int is_connected(int fd);

/* Reads one command line from stdin: NULL at its end. */
char *read_command(char *line, size_t size);

#endif
