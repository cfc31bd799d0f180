#include "link_lws.h"

#include <string.h>
#include <sys/socket.h>

#include "towline/bytes.h"

#define PROTOCOL_ERROR ((enum lws_close_status)4001)

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n);

static const struct lws_protocols PROTOCOLS[] = {
    {.name = "towline.v1", .callback = on_event, .rx_buffer_size = TL_LINK_MESSAGE_MAX},
    {.name = NULL},
};

/* --- the connection's thread --- */

static bool tell(tl_link *link, tl_event_kind kind, tl_span bytes)
{
    const tl_event event = {.kind = (uint8_t)kind, .number = link->number, .bytes = bytes};
    return tl_queue_post(link->queue, &event);
}

/* The first reason is told. */
static void note(tl_link *link, const char *why)
{
    if (link->why == NULL) {
        link->why = why;
    }
}

static int end(tl_link *link, const char *why)
{
    link->over = true;
    note(link, why);
    return -1;
}

static void too_late(lws_sorted_usec_list_t *deadline)
{
    tl_link *link = lws_container_of(deadline, tl_link, deadline);
    end(link, "not connected in time");
    lws_cancel_service(link->context);
}

static void set_deadline(tl_link *link, uint32_t ms)
{
    lws_sul_schedule(link->context, 0, &link->deadline, too_late, (lws_usec_t)ms * LWS_US_PER_MS);
}

/* Our close frame is yet to leave, and the peer's to come. */
static void await_close(tl_link *link, const char *why)
{
    note(link, why);
    if (!link->over) { /* else the context itself is about to go */
        set_deadline(link, TL_LINK_CLOSE_MS);
    }
}

/* The peer broke a rule of the transport (specification, section 1). */
static int violated(tl_link *link, const char *rule)
{
    pthread_mutex_lock(&link->lock);
    link->closing = link->close_said = true;
    pthread_mutex_unlock(&link->lock);
    link->status = (uint16_t)PROTOCOL_ERROR;
    lws_close_reason(link->wsi, PROTOCOL_ERROR, (uint8_t *)(uintptr_t)rule, strlen(rule));
    await_close(link, rule);
    return -1;
}

static int connected(tl_link *link, struct lws *wsi)
{
    const int size = link->socket_buffer;
    if (size > 0) {
        setsockopt(lws_get_socket_fd(wsi), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        setsockopt(lws_get_socket_fd(wsi), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    lws_sul_cancel(&link->deadline);
    pthread_mutex_lock(&link->lock);
    link->wsi = wsi;
    link->opened = true;
    const bool closing = link->closing;
    pthread_mutex_unlock(&link->lock);
    if (closing) {
        return end(link, "closed");
    }
    return tell(link, TL_EVENT_LINK_OPENED, (tl_span){NULL, 0}) ? 0 : end(link, "the core is stuck");
}

static tl_link_slot *free_slot(tl_link *link)
{
    tl_link_slot *found = NULL;
    pthread_mutex_lock(&link->lock);
    for (size_t i = 0; found == NULL && i < TL_LINK_RX_SLOTS; i++) {
        found = link->rx[i].lent ? NULL : &link->rx[i];
    }
    pthread_mutex_unlock(&link->lock);
    return found;
}

/* Takes no more from the socket until the core gave a slot back: TCP slows the peer. */
static void pause_if_full(tl_link *link)
{
    if (!link->paused && free_slot(link) == NULL) {
        link->paused = true;
        lws_rx_flow_control(link->wsi, 0);
    }
}

static int message_came(tl_link *link)
{
    tl_link_slot *slot = link->filling;
    link->filling = NULL;
    pthread_mutex_lock(&link->lock);
    slot->lent = true;
    pthread_mutex_unlock(&link->lock);
    if (!tell(link, TL_EVENT_LINK_MESSAGE, (tl_span){slot->bytes, slot->n})) {
        pthread_mutex_lock(&link->lock);
        slot->lent = false; /* nobody has it: the next connection needs it */
        pthread_mutex_unlock(&link->lock);
        return end(link, "the core is stuck");
    }
    pause_if_full(link);
    return 0;
}

/* A message comes in pieces, as they lay in the socket. */
static int piece_came(tl_link *link, const uint8_t *piece, size_t n)
{
    if (!lws_frame_is_binary(link->wsi) || (lws_is_first_fragment(link->wsi) != (link->filling == NULL))) {
        return violated(link, "not one binary frame a message");
    }
    if (link->filling == NULL) {
        link->filling = free_slot(link);
        if (link->filling == NULL) {
            return end(link, "a message came while none was read");
        }
        link->filling->n = 0;
    }
    if (n > TL_LINK_MESSAGE_MAX - link->filling->n) {
        return violated(link, "a message over 2048 bytes");
    }
    memcpy(link->filling->bytes + link->filling->n, piece, n);
    link->filling->n += n;
    if (lws_remaining_packet_payload(link->wsi) > 0) {
        return 0;
    }
    return lws_is_final_fragment(link->wsi) ? message_came(link) : violated(link, "a fragmented message");
}

/* The socket takes more: the message that waits, then the close. */
static int may_write(tl_link *link)
{
    pthread_mutex_lock(&link->lock);
    const size_t n = link->tx_n;
    const bool closing = link->closing;
    pthread_mutex_unlock(&link->lock);
    if (n > 0) { /* the core does not touch the room meanwhile */
        if (lws_write(link->wsi, link->tx + LWS_PRE, n, LWS_WRITE_BINARY) < (int)n) {
            return end(link, "sending failed");
        }
        pthread_mutex_lock(&link->lock);
        link->tx_n = 0;
        const bool wanted = link->wants_room;
        link->wants_room = false;
        pthread_mutex_unlock(&link->lock);
        if (wanted && !tell(link, TL_EVENT_LINK_WRITABLE, (tl_span){NULL, 0})) {
            return end(link, "the core is stuck");
        }
        if (closing) {
            lws_callback_on_writable(link->wsi);
        }
        return 0;
    }
    if (closing && !link->close_said) {
        link->close_said = true;
        lws_close_reason(link->wsi, (enum lws_close_status)link->close_status, link->close_reason,
                         link->close_reason_n);
        return -1;
    }
    return 0;
}

/* The core did something. */
static void look(tl_link *link)
{
    pthread_mutex_lock(&link->lock);
    const bool closing = link->closing, writes = link->tx_n > 0;
    pthread_mutex_unlock(&link->lock);
    if (link->close_said) {
        return;
    }
    if (link->wsi == NULL) {
        if (closing) {
            end(link, "closed");
        }
        return;
    }
    if (closing && link->why == NULL) {
        await_close(link, "closed");
    }
    if (closing || writes) {
        lws_callback_on_writable(link->wsi);
    }
    if (link->paused && (closing || free_slot(link) != NULL)) {
        link->paused = false;
        lws_rx_flow_control(link->wsi, 1);
    }
}

static int failed(tl_link *link, const char *error, size_t n)
{
    const size_t kept = n < sizeof link->error - 1 ? n : sizeof link->error - 1;
    memcpy(link->error, error != NULL ? error : "", error != NULL ? kept : 0);
    link->error[error != NULL ? kept : 0] = '\0';
    return end(link, error != NULL ? link->error : "could not connect");
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct lws_context *context = lws_get_context(wsi);
    tl_link *link = context != NULL ? lws_context_user(context) : NULL;
    (void)user;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        return connected(link, wsi);
    case LWS_CALLBACK_CLIENT_RECEIVE:
        return link->over || link->why != NULL ? 0 : piece_came(link, in, n);
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return may_write(link);
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        look(link);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        link->status = n >= 2 ? tl_u16(in) : 0;
        link->close_said = true; /* libwebsockets answers it */
        await_close(link, "the server closed");
        return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        return failed(link, in, n);
    case LWS_CALLBACK_CLIENT_CLOSED:
        link->wsi = NULL;
        link->close_said = true;
        await_close(link, "the connection broke");
        return 0;
    case LWS_CALLBACK_WSI_DESTROY: /* before it the context would not let go of all that it holds */
        end(link, "the connection broke");
        return 0;
    default:
        return 0;
    }
}

static void dial(tl_link *link, struct lws_context *context)
{
    struct lws_client_connect_info info = {
        .context = context,
        .address = link->to.host,
        .host = link->to.authority,
        .port = link->to.port,
        .path = link->to.path,
        .ssl_connection = link->to.secure ? LCCSCF_USE_SSL : 0,
        .protocol = PROTOCOLS[0].name,
        .alpn = "http/1.1",
        .ietf_version_or_minus_one = -1,
    };
    set_deadline(link, TL_LINK_DIAL_MS);
    if (lws_client_connect_via_info(&info) == NULL) {
        end(link, "could not connect");
    }
    look(link); /* what the core did before there was a context to wake */
    while (!link->over && lws_service(context, 0) >= 0) {
    }
    lws_sul_cancel(&link->deadline);
}

static void set_context(tl_link *link, struct lws_context *context)
{
    pthread_mutex_lock(&link->lock);
    link->context = context;
    pthread_mutex_unlock(&link->lock);
}

static void *run(void *of)
{
    tl_link *link = of;
    tl_lws lws;
    if (tl_lws_begin(&lws, PROTOCOLS, &link->to, link)) {
        set_context(link, lws.context);
        dial(link, lws.context);
        set_context(link, NULL);
        tl_lws_end(&lws);
    }
    const tl_event closed = {
        .kind = TL_EVENT_LINK_CLOSED,
        .status = link->status,
        .number = link->number,
        .why = link->why != NULL ? link->why : "no certificate to trust, or no memory",
    };
    tl_queue_post_last(link->queue, &closed);
    return NULL;
}

/* --- the core's side --- */

static void wake(tl_link *link)
{
    if (link->context != NULL) {
        lws_cancel_service(link->context);
    }
}

static void join(tl_link *link)
{
    if (link->has_thread) {
        pthread_join(link->thread, NULL);
        link->has_thread = false;
    }
}

static uint32_t open_link(void *with, const tl_address *to)
{
    tl_link *link = with;
    join(link); /* it has told LINK_CLOSED, which was its last */
    link->number = link->number % UINT32_MAX + 1;
    link->wsi = NULL;
    link->filling = NULL;
    link->paused = link->over = link->opened = link->wants_room = link->closing = link->close_said = false;
    link->status = 0;
    link->tx_n = 0;
    link->why = NULL;
    if (!tl_lws_address_read(&link->to, to)) {
        link->over = true;
        link->why = "no address that may be dialled";
    }
    link->has_thread = pthread_create(&link->thread, NULL, run, link) == 0;
    return link->has_thread ? link->number : 0;
}

static bool take(void *with, tl_out *message)
{
    tl_link *link = with;
    pthread_mutex_lock(&link->lock);
    const bool room = link->opened && !link->closing && link->tx_n == 0;
    link->wants_room = !room;
    pthread_mutex_unlock(&link->lock);
    *message = (tl_out){link->tx + LWS_PRE, 0, TL_LINK_MESSAGE_MAX, false};
    return room;
}

static void send_message(void *with, size_t n)
{
    tl_link *link = with;
    if (n == 0) {
        return;
    }
    pthread_mutex_lock(&link->lock);
    link->tx_n = n;
    wake(link);
    pthread_mutex_unlock(&link->lock);
}

static void release(void *with, tl_span message)
{
    tl_link *link = with;
    pthread_mutex_lock(&link->lock);
    for (size_t i = 0; i < TL_LINK_RX_SLOTS; i++) {
        if (link->rx[i].bytes == message.at) {
            link->rx[i].lent = false;
        }
    }
    wake(link);
    pthread_mutex_unlock(&link->lock);
}

static void close_link(void *with, uint16_t status, const char *reason)
{
    tl_link *link = with;
    const size_t n = strlen(reason);
    pthread_mutex_lock(&link->lock);
    if (!link->closing) {
        link->closing = true;
        link->close_status = status;
        link->close_reason_n = n < TL_LINK_REASON_MAX ? n : TL_LINK_REASON_MAX;
        memcpy(link->close_reason, reason, link->close_reason_n);
        wake(link);
    }
    pthread_mutex_unlock(&link->lock);
}

void tl_link_init(tl_link *link, tl_queue *queue, int socket_buffer)
{
    memset(link, 0, sizeof *link);
    link->queue = queue;
    link->socket_buffer = socket_buffer;
    pthread_mutex_init(&link->lock, NULL);
    link->port = (tl_port_link){link, open_link, take, send_message, release, close_link};
}

void tl_link_end(tl_link *link)
{
    close_link(link, 1001, "the device stops");
    join(link);
    pthread_mutex_destroy(&link->lock);
}
