/* MQTT by esp-mqtt.
 *
 * Its functions that send wait for its lock, which its task holds while it reads and tells; that task in turn waits
 * here until the core gave a message back. So the core never calls them: what it wants is queued to `run`, a task of a
 * session, which sends one message after the other and waits for the broker's word before the next.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "esp_crt_bundle.h"
#include "freertos/event_groups.h"
#include "freertos/queue.h"
#include "mqtt_client.h"

enum { WAITING = 4, MESSAGE_MAX = 9216, PIECE = 1024, NETWORK_MS = 10000, ACK_MS = 30000, STACK = 6144 };

enum { CONNECTED = 1 << 0, LOST = 1 << 1, STOP = 1 << 2, ACKED = 1 << 3, GIVEN_BACK = 1 << 4 };

typedef struct {
    char *topic;   /* NULL: only a sign that something happened */
    char *payload; /* NULL: a subscription */
    int n;
    uint32_t number;
    uint8_t qos;
    bool retain;
} order;

/* Copies, as the client wants them: with a NUL at their end. NULL: none. */
typedef struct {
    tl_esp_address to;
    char *certificate, *key, *username, *password, *client_id, *will_topic, *will;
    int will_n;
    uint16_t keepalive_s;
} session;

typedef struct {
    EventGroupHandle_t bits;
    QueueHandle_t orders;
    atomic_bool running; /* the session's task is there; the next begins behind it */
    uint32_t number; /* of the core alone */
    atomic_int acked; /* the id of the last PUBACK */
    const char *why;
    session mine;    /* of `run` alone while it runs */
    esp_mqtt_client_handle_t client;
    /* Of the client's task: the message that comes, in pieces; then lent to the core. */
    uint8_t *message;
    size_t topic_n, message_n;
} mqtt_state;

static mqtt_state *mqtt;

static EventBits_t wait_for(EventBits_t any, uint32_t ms)
{
    return xEventGroupWaitBits(mqtt->bits, any | LOST | STOP, pdFALSE, pdFALSE, pdMS_TO_TICKS(ms));
}

/* Wakes `run` wherever it waits. */
static void signal_run(EventBits_t bit)
{
    static const order nothing = {0};
    xEventGroupSetBits(mqtt->bits, bit);
    xQueueSend(mqtt->orders, &nothing, 0); /* full: it is awake */
}

/* --- the client's task --- */

static void lose(const char *why)
{
    if (mqtt->why == NULL) {
        mqtt->why = why;
    }
    signal_run(LOST);
}

/* Topic and message behind one another in one block, which the core has until it releases it. */
static bool begin_message(const esp_mqtt_event_t *event)
{
    if (event->total_data_len < 0 || event->topic_len <= 0 ||
        event->total_data_len + event->topic_len > MESSAGE_MAX) {
        lose("a message that is too long");
        return false;
    }
    free(mqtt->message);
    mqtt->message = malloc((size_t)(event->total_data_len + event->topic_len));
    if (mqtt->message == NULL) {
        lose("no memory for a message");
        return false;
    }
    mqtt->topic_n = (size_t)event->topic_len;
    mqtt->message_n = 0;
    memcpy(mqtt->message, event->topic, mqtt->topic_n);
    return true;
}

static void lend(void)
{
    xEventGroupClearBits(mqtt->bits, GIVEN_BACK);
    const tl_event came = {
        .kind = TL_EVENT_MQTT_MESSAGE,
        .topic = {mqtt->message, mqtt->topic_n},
        .bytes = {mqtt->message + mqtt->topic_n, mqtt->message_n},
    };
    if (!tl_esp_post(&came)) {
        lose("the core is stuck");
        return;
    }
    /* The core gives back what it was lent also behind a STOP; a core that does not is stuck. */
    xEventGroupWaitBits(mqtt->bits, GIVEN_BACK, pdFALSE, pdFALSE, portMAX_DELAY);
    free(mqtt->message);
    mqtt->message = NULL;
}

static void piece_came(const esp_mqtt_event_t *event)
{
    if (event->current_data_offset == 0 && !begin_message(event)) {
        return;
    }
    const size_t n = (size_t)event->data_len;
    if (mqtt->message == NULL || (size_t)event->current_data_offset != mqtt->message_n ||
        mqtt->message_n + n > (size_t)event->total_data_len) {
        lose("a message out of order");
        return;
    }
    memcpy(mqtt->message + mqtt->topic_n + mqtt->message_n, event->data, n);
    mqtt->message_n += n;
    if (mqtt->message_n == (size_t)event->total_data_len) {
        lend();
    }
}

static void on_event(void *with, esp_event_base_t base, int32_t id, void *data)
{
    (void)with;
    (void)base;
    const esp_mqtt_event_t *event = data;
    if ((xEventGroupGetBits(mqtt->bits) & (LOST | STOP)) != 0) {
        return;
    }
    switch (id) {
    case MQTT_EVENT_CONNECTED:
        xEventGroupSetBits(mqtt->bits, CONNECTED);
        return;
    case MQTT_EVENT_PUBLISHED:
        atomic_store(&mqtt->acked, event->msg_id);
        xEventGroupSetBits(mqtt->bits, ACKED);
        return;
    case MQTT_EVENT_DATA:
        piece_came(event);
        return;
    case MQTT_EVENT_ERROR:
        if (event->error_handle->error_type == MQTT_ERROR_TYPE_CONNECTION_REFUSED) {
            lose("the broker refused");
        }
        return;
    case MQTT_EVENT_DISCONNECTED:
        lose("the connection broke");
        return;
    default:
        return;
    }
}

/* --- the session's task --- */

static esp_mqtt_client_handle_t new_client(const session *s)
{
    const esp_mqtt_client_config_t config = {
        .broker.address = {.hostname = s->to.host,
                           .port = (uint32_t)s->to.port,
                           .transport = MQTT_TRANSPORT_OVER_SSL},
        .broker.verification = {.certificate = s->to.ca,
                                .crt_bundle_attach = s->to.ca == NULL ? esp_crt_bundle_attach : NULL},
        .credentials = {.username = s->username,
                        .client_id = s->client_id,
                        .authentication = {.password = s->password, .certificate = s->certificate, .key = s->key}},
        .session = {.last_will = {.topic = s->will_topic, .msg = s->will, .msg_len = s->will_n, .qos = 1},
                    .keepalive = s->keepalive_s,
                    .protocol_ver = MQTT_PROTOCOL_V_3_1_1,
                    .message_retransmit_timeout = ACK_MS}, /* TCP repeats; a second copy would only count twice */
        .network = {.timeout_ms = NETWORK_MS, .disable_auto_reconnect = true},
        .task = {.priority = TL_ESP_PRIORITY, .stack_size = TL_ESP_STACK_TLS},
        .buffer = {.size = PIECE, .out_size = PIECE},
    };
    return esp_mqtt_client_init(&config);
}

static bool connect_client(void)
{
    mqtt->client = new_client(&mqtt->mine);
    if (mqtt->client == NULL ||
        esp_mqtt_client_register_event(mqtt->client, MQTT_EVENT_ANY, on_event, NULL) != ESP_OK ||
        esp_mqtt_client_start(mqtt->client) != ESP_OK) {
        lose("no memory");
        return false;
    }
    const EventBits_t came = wait_for(CONNECTED, TL_MQTT_CONNECT_MS);
    if ((came & (LOST | STOP)) != 0) {
        return false;
    }
    if ((came & CONNECTED) == 0) {
        lose("not connected in time");
        return false;
    }
    return tl_esp_post(&(tl_event){.kind = TL_EVENT_MQTT_CONNECTED});
}

/* Sends it and waits until the broker has it. */
static bool publish_one(const order *o)
{
    xEventGroupClearBits(mqtt->bits, ACKED);
    const int id = esp_mqtt_client_publish(mqtt->client, o->topic, o->payload, o->n, o->qos, o->retain);
    if (id < 0) {
        lose("sending failed");
        return false;
    }
    while (o->qos > 0 && atomic_load(&mqtt->acked) != id) {
        const EventBits_t came = wait_for(ACKED, ACK_MS);
        xEventGroupClearBits(mqtt->bits, ACKED);
        if ((came & ACKED) == 0) {
            lose("the broker does not answer");
            return false;
        }
        if ((came & (LOST | STOP)) != 0) {
            return false;
        }
    }
    return tl_esp_post(&(tl_event){.kind = TL_EVENT_MQTT_TAKEN, .number = o->number});
}

static bool carry_out(const order *o)
{
    if (o->topic == NULL) {
        return true;
    }
    if (o->payload != NULL) {
        return publish_one(o);
    }
    if (esp_mqtt_client_subscribe_single(mqtt->client, o->topic, 1) < 0) {
        lose("subscribing failed");
        return false;
    }
    return true;
}

static void drop(order *o)
{
    free(o->topic);
    free(o->payload);
}

static void serve(void)
{
    order next;
    bool goes_on = true;
    while (goes_on && (xEventGroupGetBits(mqtt->bits) & (LOST | STOP)) == 0) {
        xQueueReceive(mqtt->orders, &next, portMAX_DELAY);
        goes_on = (xEventGroupGetBits(mqtt->bits) & (LOST | STOP)) == 0 && carry_out(&next);
        drop(&next);
    }
}

static void forget(session *s)
{
    tl_esp_address_end(&s->to);
    char *const texts[] = {s->certificate, s->key, s->username, s->password, s->client_id, s->will_topic, s->will};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        free(texts[i]);
    }
    *s = (session){0};
}

static void run(void *with)
{
    (void)with;
    if (connect_client()) {
        serve();
    }
    const bool asked = (xEventGroupGetBits(mqtt->bits) & STOP) != 0;
    if (mqtt->client != NULL) {
        esp_mqtt_client_destroy(mqtt->client); /* says goodbye where it can, and waits for its task */
        mqtt->client = NULL;
    }
    order left;
    while (xQueueReceive(mqtt->orders, &left, 0) == pdTRUE) {
        drop(&left);
    }
    forget(&mqtt->mine);
    const tl_event lost = {.kind = TL_EVENT_MQTT_LOST, .why = mqtt->why != NULL ? mqtt->why : "the core is stuck"};
    atomic_store(&mqtt->running, false);
    if (!asked) {
        tl_esp_post_last(&lost);
    }
    vTaskDelete(NULL);
}

/* --- the core's side --- */

/* True: a copy was made, or there is nothing to copy. */
static bool keep(char **to, tl_span text)
{
    *to = text.n > 0 ? tl_esp_text(text) : NULL;
    return *to != NULL || text.n == 0;
}

static bool remember(session *s, const tl_mqtt_session *wanted)
{
    s->will_n = (int)wanted->will.n;
    s->keepalive_s = wanted->keepalive_s;
    return tl_esp_address_copy(&s->to, &wanted->to) && keep(&s->certificate, wanted->certificate) &&
           keep(&s->key, wanted->key) && keep(&s->username, wanted->username) &&
           keep(&s->password, wanted->password) && keep(&s->client_id, wanted->client_id) &&
           keep(&s->will_topic, wanted->will_topic) && keep(&s->will, wanted->will);
}

static bool start(void *with, const tl_mqtt_session *wanted)
{
    (void)with;
    if (atomic_load(&mqtt->running)) {
        return false;
    }
    xEventGroupClearBits(mqtt->bits, CONNECTED | LOST | STOP | ACKED | GIVEN_BACK);
    mqtt->why = NULL;
    atomic_store(&mqtt->acked, 0);
    atomic_store(&mqtt->running, true);
    if (!remember(&mqtt->mine, wanted) ||
        xTaskCreate(run, "towline_mqtt", STACK, NULL, TL_ESP_PRIORITY, NULL) != pdPASS) {
        forget(&mqtt->mine);
        atomic_store(&mqtt->running, false);
        return false;
    }
    return true;
}

static bool queue_order(order *o, bool whole)
{
    const bool connected = (xEventGroupGetBits(mqtt->bits) & (CONNECTED | LOST | STOP)) == CONNECTED;
    if (whole && connected && xQueueSend(mqtt->orders, o, 0) == pdTRUE) {
        return true;
    }
    drop(o);
    return false;
}

static bool subscribe(void *with, tl_span topic)
{
    (void)with;
    order o = {.topic = tl_esp_text(topic)};
    return queue_order(&o, o.topic != NULL);
}

static uint32_t publish(void *with, tl_span topic, tl_span payload, uint8_t qos, bool retain)
{
    (void)with;
    mqtt->number = mqtt->number % UINT32_MAX + 1;
    order o = {
        .topic = tl_esp_text(topic),
        .payload = tl_esp_text(payload),
        .n = (int)payload.n,
        .number = mqtt->number,
        .qos = qos,
        .retain = retain,
    };
    return queue_order(&o, o.topic != NULL && o.payload != NULL) ? o.number : 0;
}

static void release(void *with, tl_span message)
{
    (void)with;
    (void)message;
    xEventGroupSetBits(mqtt->bits, GIVEN_BACK);
}

static void stop(void *with)
{
    (void)with;
    if (atomic_load(&mqtt->running)) {
        signal_run(STOP);
    }
}

const tl_port_mqtt *tl_esp_mqtt(void)
{
    static const tl_port_mqtt group = {NULL, start, subscribe, publish, release, stop};
    mqtt = calloc(1, sizeof *mqtt);
    configASSERT(mqtt != NULL);
    mqtt->bits = xEventGroupCreate();
    mqtt->orders = xQueueCreate(WAITING, sizeof(order));
    configASSERT(mqtt->bits != NULL && mqtt->orders != NULL);
    return &group;
}
