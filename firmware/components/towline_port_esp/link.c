/* The tunnel's WebSocket, by esp_websocket_client.
 *
 * Two tasks beside the core's: the client's own reads, and hands whole messages to the core; `run` below dials, sends
 * and closes. A read that finds both slots lent waits, and TCP slows the server. The client's functions that
 * end it may not be called from its own task, and any that sends waits for the network: only `run` calls them.
 * Dialling cannot be broken off: LINK_CLOSED may come TL_LINK_DIAL_MS late. The client follows a redirection of the
 * upgrade; who it finds there has to name itself in CHALLENGE as the dialled name, or the core closes.
 */
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "esp_crt_bundle.h"
#include "esp_websocket_client.h"
#include "freertos/event_groups.h"
#include "freertos/semphr.h"

enum { SLOTS = 2, SEND_MS = 10000, CLOSE_MS = 1000, STATUS_BAD_MESSAGE = 4001, REASON_MAX = 123 };

enum { OPENED = 1 << 0, OVER = 1 << 1, SEND = 1 << 2, CLOSE = 1 << 3 };

typedef struct {
    uint8_t bytes[TL_LINK_MESSAGE_MAX];
    size_t n;
    bool lent;
} rx_slot;

typedef struct {
    SemaphoreHandle_t lock; /* of all below it but `bits` and what one task alone uses */
    EventGroupHandle_t bits;
    SemaphoreHandle_t free_slots;
    rx_slot rx[SLOTS];
    uint8_t tx[TL_LINK_MESSAGE_MAX];
    size_t tx_n; /* > 0: it waits to be sent, and the core leaves `tx` alone */
    bool opened, closing, wants_room;
    uint16_t close_status;
    char close_reason[REASON_MAX];
    size_t close_reason_n;
    uint32_t number;
    uint16_t status; /* of the server's close frame */
    const char *why; /* the first reason is told */
    /* Of the reading task alone. */
    rx_slot *filling;
    /* Of `run` alone. */
    tl_esp_address to;
    esp_websocket_client_handle_t client;
} wire_state;

static wire_state *wire;

static void lock(void)
{
    xSemaphoreTake(wire->lock, portMAX_DELAY);
}

static void unlock(void)
{
    xSemaphoreGive(wire->lock);
}

static void note(const char *why)
{
    lock();
    if (wire->why == NULL) {
        wire->why = why;
    }
    unlock();
}

static bool tell(tl_event_kind kind, tl_span bytes)
{
    const tl_event event = {.kind = (uint8_t)kind, .number = wire->number, .bytes = bytes};
    return tl_esp_post(&event);
}

static void want_close(uint16_t status, const char *reason)
{
    const size_t n = strlen(reason);
    lock();
    if (!wire->closing) {
        wire->closing = true;
        wire->close_status = status;
        wire->close_reason_n = n < REASON_MAX ? n : REASON_MAX;
        memcpy(wire->close_reason, reason, wire->close_reason_n);
    }
    unlock();
    xEventGroupSetBits(wire->bits, CLOSE);
}

/* --- the client's task --- */

static void give_up(uint16_t status, const char *why)
{
    note(why);
    want_close(status, why);
}

static rx_slot *take_slot(void)
{
    if (xSemaphoreTake(wire->free_slots, pdMS_TO_TICKS(TL_QUEUE_PATIENCE_MS)) != pdTRUE) {
        return NULL;
    }
    rx_slot *found = NULL;
    lock();
    for (size_t i = 0; found == NULL && i < SLOTS; i++) {
        found = wire->rx[i].lent ? NULL : &wire->rx[i];
    }
    found->lent = true;
    found->n = 0;
    unlock();
    return found;
}

static void give_back(rx_slot *slot)
{
    lock();
    slot->lent = false;
    unlock();
    xSemaphoreGive(wire->free_slots);
}

static void piece_came(const esp_websocket_event_data_t *piece)
{
    const size_t n = (size_t)piece->data_len;
    if (piece->op_code != WS_TRANSPORT_OPCODES_BINARY || !piece->fin) {
        give_up(STATUS_BAD_MESSAGE, "not one binary frame a message");
        return;
    }
    if (piece->payload_len < 0 || (size_t)piece->payload_len > TL_LINK_MESSAGE_MAX) {
        give_up(STATUS_BAD_MESSAGE, "a message over 2048 bytes");
        return;
    }
    if (wire->filling == NULL) {
        wire->filling = take_slot();
    }
    rx_slot *slot = wire->filling;
    if (slot == NULL || n > TL_LINK_MESSAGE_MAX - slot->n) {
        give_up(1011, "the core is stuck");
        return;
    }
    memcpy(slot->bytes + slot->n, piece->data_ptr, n);
    slot->n += n;
    if (slot->n < (size_t)piece->payload_len) {
        return;
    }
    wire->filling = NULL;
    if (slot->n == 0 || !tell(TL_EVENT_LINK_MESSAGE, (tl_span){slot->bytes, slot->n})) {
        give_back(slot);
        give_up(slot->n == 0 ? STATUS_BAD_MESSAGE : 1011, slot->n == 0 ? "an empty message" : "the core is stuck");
    }
}

static bool ending(void)
{
    lock();
    const bool is = wire->closing;
    unlock();
    return is;
}

static void on_event(void *with, esp_event_base_t base, int32_t id, void *data)
{
    (void)with;
    (void)base;
    const esp_websocket_event_data_t *event = data;
    switch (id) {
    case WEBSOCKET_EVENT_CONNECTED:
        xEventGroupSetBits(wire->bits, OPENED);
        return;
    case WEBSOCKET_EVENT_DATA:
        /* PING, PONG and CLOSE are told as well; the client has answered them. */
        if (event->op_code < WS_TRANSPORT_OPCODES_CLOSE && !ending()) {
            piece_came(event);
        }
        return;
    case WEBSOCKET_EVENT_CLOSED:
        note("the server closed");
        wire->status = (uint16_t)event->close_status_code;
        return;
    case WEBSOCKET_EVENT_DISCONNECTED:
        note(event->error_handle.error_type == WEBSOCKET_ERROR_TYPE_HANDSHAKE ? "no WebSocket there"
                                                                             : "the connection broke");
        return;
    case WEBSOCKET_EVENT_FINISH:
        xEventGroupSetBits(wire->bits, OVER);
        return;
    default:
        return;
    }
}

/* --- the task that dials, sends and closes --- */

static esp_websocket_client_handle_t new_client(void)
{
    const esp_websocket_client_config_t config = {
        .host = wire->to.host,
        .port = wire->to.port,
        .path = wire->to.path,
        .transport = WEBSOCKET_TRANSPORT_OVER_SSL,
        .cert_pem = wire->to.ca,
        .crt_bundle_attach = wire->to.ca == NULL ? esp_crt_bundle_attach : NULL,
        .subprotocol = "towline.v1",
        .disable_auto_reconnect = true, /* the core says when */
        .task_name = "towline_link",
        .task_prio = TL_ESP_PRIORITY,
        .task_stack = TL_ESP_STACK_TLS,
        .buffer_size = TL_LINK_MESSAGE_MAX, /* a longer message would leave as several frames */
        .network_timeout_ms = TL_LINK_DIAL_MS,
    };
    return esp_websocket_client_init(&config);
}

/* False: it was not reached in time, or is over again. */
static bool dial(void)
{
    wire->client = new_client();
    if (wire->client == NULL ||
        esp_websocket_register_events(wire->client, WEBSOCKET_EVENT_ANY, on_event, NULL) != ESP_OK ||
        esp_websocket_client_start(wire->client) != ESP_OK) {
        note("no memory");
        return false;
    }
    const EventBits_t came =
        xEventGroupWaitBits(wire->bits, OPENED | OVER | CLOSE, pdFALSE, pdFALSE, pdMS_TO_TICKS(TL_LINK_DIAL_MS));
    if ((came & (OPENED | OVER | CLOSE)) == 0) {
        note("not connected in time");
    }
    return (came & (OPENED | OVER | CLOSE)) == OPENED;
}

/* A send that fails has ended the client's connection, which its task tells. */
static void send_waiting(void)
{
    lock();
    const size_t n = wire->tx_n;
    unlock();
    if (n > 0) {
        esp_websocket_client_send_bin(wire->client, (const char *)wire->tx, (int)n, pdMS_TO_TICKS(SEND_MS));
    }
    lock();
    wire->tx_n = 0;
    const bool wanted = wire->wants_room;
    wire->wants_room = false;
    unlock();
    if (wanted && !tell(TL_EVENT_LINK_WRITABLE, (tl_span){NULL, 0})) {
        give_up(1011, "the core is stuck");
    }
}

static void say_close(void)
{
    uint8_t frame[2 + REASON_MAX];
    lock();
    frame[0] = (uint8_t)(wire->close_status >> 8);
    frame[1] = (uint8_t)wire->close_status;
    memcpy(frame + 2, wire->close_reason, wire->close_reason_n);
    const int n = (int)(2 + wire->close_reason_n);
    unlock();
    /* esp_websocket_client_close_with_code would wait for a stuck connection without an end. */
    esp_websocket_client_send_with_opcode(wire->client, WS_TRANSPORT_OPCODES_CLOSE, frame, n, pdMS_TO_TICKS(CLOSE_MS));
}

static void serve(void)
{
    for (;;) {
        const EventBits_t came = xEventGroupWaitBits(wire->bits, OVER | SEND | CLOSE, pdFALSE, pdFALSE, portMAX_DELAY);
        if (came & OVER) {
            return;
        }
        if (came & SEND) {
            xEventGroupClearBits(wire->bits, SEND);
            send_waiting();
        } else {
            say_close();
            return;
        }
    }
}

static void connect_and_serve(void)
{
    if (!dial()) {
        return;
    }
    lock();
    wire->opened = true;
    unlock();
    if (tell(TL_EVENT_LINK_OPENED, (tl_span){NULL, 0})) {
        serve();
    } else {
        note("the core is stuck");
    }
}

static void run(void *with)
{
    (void)with;
    if (wire->to.host != NULL) {
        connect_and_serve();
    }
    if (wire->client != NULL) {
        esp_websocket_client_destroy(wire->client); /* waits for its task */
        wire->client = NULL;
    }
    if (wire->filling != NULL) {
        give_back(wire->filling);
        wire->filling = NULL;
    }
    tl_esp_address_end(&wire->to);
    const tl_event closed = {
        .kind = TL_EVENT_LINK_CLOSED,
        .status = wire->status,
        .number = wire->number,
        .why = wire->why != NULL ? wire->why : "closed",
    };
    lock();
    wire->opened = false;
    unlock();
    tl_esp_post_last(&closed);
    vTaskDelete(NULL);
}

/* --- the core's side --- */

static uint32_t open_link(void *with, const tl_address *to)
{
    (void)with;
    lock();
    wire->number = wire->number % UINT32_MAX + 1;
    wire->opened = wire->closing = wire->wants_room = false;
    wire->tx_n = 0;
    wire->status = 0;
    wire->why = NULL;
    unlock();
    xEventGroupClearBits(wire->bits, OPENED | OVER | SEND | CLOSE);
    if (!tl_esp_address_copy(&wire->to, to)) {
        tl_esp_address_end(&wire->to);
        wire->why = "no address that may be dialled";
    }
    const BaseType_t made = xTaskCreate(run, "towline_dial", TL_ESP_STACK_SENDING, NULL, TL_ESP_PRIORITY, NULL);
    if (made != pdPASS) {
        tl_esp_address_end(&wire->to);
        return 0;
    }
    return wire->number;
}

static bool take(void *with, tl_out *message)
{
    (void)with;
    lock();
    const bool room = wire->opened && !wire->closing && wire->tx_n == 0;
    wire->wants_room = !room;
    unlock();
    *message = (tl_out){wire->tx, 0, TL_LINK_MESSAGE_MAX, false};
    return room;
}

static void send_message(void *with, size_t n)
{
    (void)with;
    if (n == 0) {
        return;
    }
    lock();
    wire->tx_n = n;
    unlock();
    xEventGroupSetBits(wire->bits, SEND);
}

static void release(void *with, tl_span message)
{
    (void)with;
    for (size_t i = 0; i < SLOTS; i++) {
        if (wire->rx[i].bytes == message.at) {
            give_back(&wire->rx[i]);
        }
    }
}

static void close_link(void *with, uint16_t status, const char *reason)
{
    (void)with;
    want_close(status, reason);
}

const tl_port_link *tl_esp_link(void)
{
    static const tl_port_link group = {NULL, open_link, take, send_message, release, close_link};
    wire = calloc(1, sizeof *wire);
    configASSERT(wire != NULL);
    wire->lock = xSemaphoreCreateMutex();
    wire->bits = xEventGroupCreate();
    wire->free_slots = xSemaphoreCreateCounting(SLOTS, SLOTS);
    configASSERT(wire->lock != NULL && wire->bits != NULL && wire->free_slots != NULL);
    return &group;
}
