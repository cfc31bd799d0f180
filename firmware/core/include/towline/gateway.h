/* Everything that this device asks its gateway for, one call at a time: to be taken (enrolment), a new certificate
 * (renewal), and where its messages go (connection).
 *
 * Bytes in, calls out: the port's fetch events come in through `tl_gateway_event`; what is due is done by
 * `tl_gateway_run`. An enrolment outlives a restart: what the gateway answered is kept until it is decided, and a
 * registration token whose answer was lost works again for the same key.
 */
#ifndef TOWLINE_GATEWAY_H
#define TOWLINE_GATEWAY_H

#include "towline/call.h"
#include "towline/device_line.h"
#include "towline/log_ring.h"

#define TL_ENROLMENT_ID_MAX 36u
#define TL_SECRET_MAX 64u      /* the gateway's have 43 characters */
#define TL_LOOK_MS 3000u       /* the owner may stand beside the device */
#define TL_LOOKS_QUICK 40u     /* then it was left alone */
#define TL_LOOK_SLOW_MS 15000u /* a TLS handshake each */
#define TL_ENROL_RETRY_MS 5000u
#define TL_ENROL_RETRY_MAX_MS 60000u
#define TL_RENEW_RETRY_MS 60000u
#define TL_RENEW_RETRY_MAX_MS 3600000u
#define TL_RENEW_LOOK_MS 3600000u /* the clock may be set meanwhile */
#define TL_RENEW_PAUSE_MS 3600000u /* after one that succeeded, whatever asks for another */
#define TL_NO_CLOCK_MS 10000u     /* until it is asked again whether the time is known */
#define TL_BUSY_MS 1000u          /* the workspace or the port's one fetch is somebody else's */

/* What the owner is told. The spans are its own and stay where they are until the enrolment is over. */
typedef struct {
    tl_span gateway; /* its address */
    tl_span token;   /* registration token */
    tl_span name;    /* empty: the hardware id */
    tl_span hardware_id, software;
} tl_enrolment_ask;

/* An enrolment that waits: kept as it stands, so a change of it is another record. */
typedef struct {
    uint8_t id_n; /* 0: none waits */
    uint8_t id[TL_ENROLMENT_ID_MAX];
    uint8_t secret_n;
    uint8_t secret[TL_SECRET_MAX];
    uint8_t gateway_n; /* at which */
    uint8_t gateway[TL_URL_MAX];
} tl_enrolment_kept;

typedef enum {
    TL_GATEWAY_ENROLLED,     /* the identity is there */
    TL_GATEWAY_NOT_ENROLLED, /* it ended without one, and the token is worth nothing any more; `why` */
    TL_GATEWAY_RENEWED,      /* certificate, addresses and CA of the identity may be others now */
    TL_GATEWAY_CONNECTION,   /* `connection` of the gateway holds */
    TL_GATEWAY_NO_CONNECTION /* ask again, later; `why` */
} tl_gateway_news;

typedef void (*tl_gateway_tell)(void *owner, tl_gateway_news news, const char *why);

/* Where messages go. The broker's CA is the identity's server_ca, or nobody's. */
typedef struct {
    bool pinned; /* false: the system's roots */
    uint16_t prefix_n;
    uint8_t prefix[TL_PREFIX_MAX];
    uint8_t url_n;
    uint8_t url[TL_URL_MAX];
    uint8_t password_n; /* 0: the broker asks for the device's certificate */
    uint8_t password[TL_SECRET_MAX];
} tl_connection;

typedef struct {
    const tl_port *port;
    tl_log_ring *log;
    tl_workspace *workspace;
    tl_grants_scratch *scratch;
    tl_identity *identity;
    tl_grants *grants; /* set up before `run` is called with an enrolled identity */
    tl_gateway_tell tell;
    void *owner;
} tl_gateway_parts;

typedef struct {
    tl_gateway_parts parts;
    tl_call call;
    uint8_t step; /* what the call is for; private */
    uint8_t failures; /* in a row, of the enrolment or of the renewal */
    uint8_t looks;
    uint8_t spread; /* devices that enrolled together do not renew together */
    bool asked;     /* `ask` was set */
    bool renew_now;
    bool connection_wanted;
    uint64_t due_ms; /* before it neither enrolment nor renewal is tried */
    tl_enrolment_ask ask;
    tl_enrolment_kept waiting;
    tl_connection connection;
} tl_gateway;

void tl_gateway_init(tl_gateway *, const tl_gateway_parts *);
/* Enrols, or goes on with an enrolment at that gateway that waits. NULL, or what is wrong with its address. */
const char *tl_gateway_enrol(tl_gateway *, const tl_enrolment_ask *);
/* CONNECTION or NO_CONNECTION follows. A password that was given before ends. */
void tl_gateway_ask_connection(tl_gateway *);
/* FETCH_*; false: it is of another's fetch. */
bool tl_gateway_event(tl_gateway *, const tl_event *);
/* Does what is due; when it wants to be called again, UINT64_MAX: after an event. */
uint64_t tl_gateway_run(tl_gateway *);
/* Whether an enrolment waits for a person's approval. */
bool tl_gateway_waits(const tl_gateway *);
/* Ends what is under way; nothing is told. */
void tl_gateway_stop(tl_gateway *);
/* Where the broker is; false: the connection names none. */
bool tl_connection_address(const tl_connection *, const tl_identity *, tl_address *address);

#endif
