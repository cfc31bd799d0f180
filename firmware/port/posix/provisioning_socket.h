/* Provisioning without a radio: what ESP-IDF's network_provisioning says over SoftAP, on a TCP socket of this machine.
 *
 * POST /proto-ver, /prov-session (security 2), /prov-config (network_config.proto) and /towline; bodies as a phone's app
 * sends them. A thread serves one connection at a time; the core answers what is asked in the session.
 */
#ifndef TOWLINE_PROVISIONING_SOCKET_H
#define TOWLINE_PROVISIONING_SOCKET_H

#include "queue.h"
#include "security2.h"
#include "towline/http_parse.h"

#include <netinet/in.h>

#define TL_PROVISIONING_BODY 4096u     /* as protocomm's web server */
#define TL_PROVISIONING_QUIET_MS 30000 /* a connection that says nothing for so long makes place for another */
#define TL_PROVISIONING_ASK_MS 10000u  /* for the core's answer */
#define TL_PROVISIONING_TRIES 5u       /* wrong PINs, then it is closed until the next start */

typedef struct {
    tl_port_provisioning port;
    tl_queue *queue;
    struct sockaddr_in listen;
    int listener, wake; /* wake: an eventfd that says stop */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t told;
    /* Under the lock. */
    bool stopping, asked;
    uint8_t reply[256];
    size_t reply_n;
    /* The thread's own. */
    uint8_t record[TL_SRP_RECORD];
    tl_security2 session;
    bool over; /* too many wrong PINs, or the core does not answer */
    uint32_t cookie; /* of the session; 0: there is none */
    char wifi[TL_WIFI_SSID_MAX + 1 + TL_WIFI_PASSWORD_MAX]; /* told, and not asked to be used yet */
    size_t wifi_n;
    tl_http_parser parser;
    uint8_t body[TL_PROVISIONING_BODY], plain[TL_PROVISIONING_BODY];
    size_t body_n;
} tl_provisioning_socket;

void tl_provisioning_socket_init(tl_provisioning_socket *, tl_queue *, const struct sockaddr_in *listen);
void tl_provisioning_socket_end(tl_provisioning_socket *);

#endif
