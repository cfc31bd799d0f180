/* The connection: made again whenever it ends, greeted with hello, heard for three kinds. The broker's word that it
 * has a message only lets the next one go. */
#include <string.h>

#include "messages_parts.h"
#include "towline/bytes.h"

#define NO_BOOT UINT64_MAX

static uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static const tl_port_mqtt *mqtt_of(const tl_messages *m)
{
    return m->parts.port->mqtt;
}

/* --- its begin and its end --- */

static void end(tl_messages *m, tl_ending ending, const char *why)
{
    const uint64_t now_ms = tl_messages_now(m);
    const bool was_up = m->state == TL_MESSAGES_UP;
    tl_log_text(m->parts.log, TL_LOG_INFO, "no connection for messages", why);
    mqtt_of(m)->stop(mqtt_of(m)->with); /* also of one that told its end: that may have been a former one's */
    tl_sending_lost(&m->sending, &m->outbox);
    m->dial_at = now_ms + tl_reconnect_ended(&m->reconnect, ending, now_ms, tl_messages_random(m), 0);
    m->failures = was_up ? 0 : (uint8_t)(m->failures + 1);
    if (m->failures >= TL_ASK_AGAIN_AFTER) {
        m->failures = 0;
        m->has_broker = false;
    }
    m->untaken = 0;
    m->state = TL_MESSAGES_WAITING;
}

static bool connected_or_about(const tl_messages *m)
{
    return m->state >= TL_MESSAGES_CONNECTING;
}

static void leave(tl_messages *m, const char *why)
{
    if (connected_or_about(m)) {
        end(m, TL_ENDING_LOST, why);
    }
}

void tl_messages_start(tl_messages *m)
{
    if (m->state == TL_MESSAGES_OFF) {
        m->state = TL_MESSAGES_WAITING;
        m->dial_at = 0;
    }
}

void tl_messages_stop(tl_messages *m)
{
    leave(m, "stopped");
    m->state = TL_MESSAGES_OFF;
    m->has_broker = false;
}

void tl_messages_reconnect(tl_messages *m)
{
    m->has_broker = false;
    leave(m, "to connect anew");
}

void tl_messages_may_dial(tl_messages *m, bool may)
{
    m->may_dial = may;
}

bool tl_messages_asks(const tl_messages *m)
{
    return m->state == TL_MESSAGES_ASKING;
}

void tl_messages_broker(tl_messages *m, const tl_broker *broker)
{
    if (m->state != TL_MESSAGES_ASKING) {
        return;
    }
    if (broker == NULL || !tl_is_prefix(broker->prefix) ||
        !tl_same(tl_prefix_device(broker->prefix), broker->device)) {
        end(m, TL_ENDING_REFUSED, "the gateway names no broker");
        return;
    }
    m->broker = *broker;
    m->has_broker = true;
    m->state = TL_MESSAGES_WAITING;
    m->dial_at = 0;
}

/* The will is written long before it is true: it bears no time. */
static void dial(tl_messages *m)
{
    uint8_t topic[TL_TOPIC_MAX];
    tl_out to = {topic, 0, sizeof topic, false};
    tl_put_topic(&to, m->broker.prefix, TL_KIND_HELLO);
    tl_out will = tl_messages_head(m, tl_kind_name(TL_KIND_HELLO), -1, sizeof m->text);
    tl_envelope_put_number(&will, (tl_number){tl_outbox_boot(&m->outbox), 0});
    tl_put_gone_body(&will, m->instance);
    tl_put_u8(&will, '}');
    const tl_mqtt_session session = {
        .to = m->broker.to,
        .certificate = m->broker.certificate,
        .key = m->broker.key,
        .username = m->broker.password.n > 0 ? m->broker.device : (tl_span){0},
        .password = m->broker.password,
        .client_id = m->broker.device,
        .will_topic = {topic, to.n},
        .will = {will.at, will.n},
        .keepalive_s = TL_MQTT_KEEPALIVE_S,
    };
    m->state = TL_MESSAGES_CONNECTING;
    m->dial_at = tl_messages_now(m) + TL_MQTT_CONNECT_MS; /* until then it is connected, or given up */
    if (!mqtt_of(m)->start(mqtt_of(m)->with, &session)) {
        end(m, TL_ENDING_LOST, "the client does not start");
    }
}

static void opened(tl_messages *m)
{
    static const tl_kind heard[] = {TL_KIND_CMD, TL_KIND_CONFIG, TL_KIND_ACCEPTED};
    const uint64_t now_ms = tl_messages_now(m);
    for (size_t i = 0; i < sizeof heard / sizeof heard[0]; i++) {
        uint8_t topic[TL_TOPIC_MAX];
        tl_out to = {topic, 0, sizeof topic, false};
        tl_put_topic(&to, m->broker.prefix, heard[i]);
        if (!mqtt_of(m)->subscribe(mqtt_of(m)->with, (tl_span){topic, to.n})) {
            return; /* LOST follows */
        }
    }
    tl_log(m->parts.log, TL_LOG_INFO, "connected for messages", (tl_span){0});
    tl_reconnect_opened(&m->reconnect, now_ms);
    m->state = TL_MESSAGES_UP;
    m->untaken = 0;
    m->answered = false;
    m->greeted_boot = NO_BOOT;
    m->publish_at = 0;
}

/* --- what is said --- */

static bool publish(tl_messages *m, tl_kind kind, const tl_out *message, uint64_t now_ms)
{
    uint8_t topic[TL_TOPIC_MAX];
    tl_out to = {topic, 0, sizeof topic, false};
    tl_put_topic(&to, m->broker.prefix, kind);
    if (mqtt_of(m)->publish(mqtt_of(m)->with, (tl_span){topic, to.n}, (tl_span){message->at, message->n}, 1, false) ==
        0) {
        m->publish_at = now_ms + TL_PUBLISH_AGAIN_MS;
        return false;
    }
    m->untaken++;
    return true;
}

static bool may_publish(const tl_messages *m, uint64_t now_ms)
{
    return m->state == TL_MESSAGES_UP && m->untaken < TL_UNTAKEN_MAX && now_ms >= m->publish_at;
}

/* Of a kind that is not numbered. */
static tl_out begin_unnumbered(tl_messages *m, tl_kind kind)
{
    tl_out out = tl_messages_head(m, tl_kind_name(kind), tl_messages_wall_ms(m), sizeof m->text);
    tl_envelope_put_number(&out, (tl_number){tl_outbox_boot(&m->outbox), 0});
    return out;
}

static void say_hello(tl_messages *m, uint64_t now_ms)
{
    const tl_outbox_report report = tl_messages_outbox(m);
    tl_hello_body body = {
        .boot = tl_outbox_boot(&m->outbox),
        .instance = m->instance,
        .software = m->parts.software,
        .type = m->parts.type,
        .config = m->configuration.running.version,
        .outbox = &report,
    };
    if (m->greeted_boot != body.boot) {
        m->hello_at = 0;
        m->hello_every_ms = TL_HELLO_FIRST_MS;
        m->answered = false;
    }
    if (m->answered || now_ms < m->hello_at || !may_publish(m, now_ms)) {
        return;
    }
    body.commands = tl_commands_names(&m->commands, &body.command_count);
    tl_out out = begin_unnumbered(m, TL_KIND_HELLO);
    tl_put_hello_body(&out, &body);
    tl_put_u8(&out, '}');
    if (!publish(m, TL_KIND_HELLO, &out, now_ms)) {
        return;
    }
    if (m->greeted_boot == NO_BOOT) {
        tl_sending_connected(&m->sending, &m->outbox, now_ms);
    }
    m->greeted_boot = body.boot;
    m->hello_at = now_ms + m->hello_every_ms;
    m->hello_every_ms = m->hello_every_ms < TL_HELLO_MAX_MS / 2 ? 2 * m->hello_every_ms : TL_HELLO_MAX_MS;
}

/* On their way is enough: the gateway sends a command again whose answer it does not hear. */
static void say_acks(tl_messages *m, uint64_t now_ms)
{
    tl_ack_body body;
    uint8_t text[TL_LEDGER_ERROR_MAX];
    tl_out told = {text, 0, sizeof text, false};
    while (may_publish(m, now_ms) && tl_commands_ack(&m->commands, &body, &told)) {
        tl_out out = begin_unnumbered(m, TL_KIND_ACK);
        tl_put_ack_body(&out, &body);
        tl_put_u8(&out, '}');
        if (publish(m, TL_KIND_ACK, &out, now_ms)) {
            tl_commands_ack_said(&m->commands);
        }
        told.n = 0;
    }
}

static void say_entries(tl_messages *m, uint64_t now_ms)
{
    uint16_t index;
    while (may_publish(m, now_ms) && tl_sending_next(&m->sending, &m->outbox, now_ms, &index)) {
        tl_out out = {m->text, 0, sizeof m->text, false};
        const tl_kind kind = tl_outbox_message(&m->outbox, index, &out);
        if (kind == TL_KIND_NONE) {
            if (index > 0) {
                return; /* those before it go first */
            }
            tl_log(m->parts.log, TL_LOG_ERROR, "a message cannot be read back", (tl_span){0});
            tl_outbox_let_go(&m->outbox, false);
        } else if (publish(m, kind, &out, now_ms)) {
            tl_sending_sent(&m->sending, &m->outbox, index, now_ms, tl_messages_random(m));
        }
    }
}

/* --- what is told --- */

/* Another one: the device was moved, and its topics with it. The gateway alone says where it belongs. */
static void check_prefix(tl_messages *m, tl_span prefix)
{
    if (!tl_same(prefix, m->broker.prefix) && tl_same(tl_prefix_device(prefix), m->broker.device)) {
        m->configuration.owes_report |= m->configuration.running.version != 0;
        tl_messages_reconnect(m);
    }
}

static void hear_accepted(tl_messages *m, tl_span raw)
{
    const uint64_t now_ms = tl_messages_now(m);
    tl_told told;
    if (!tl_told_accepted(raw, &told)) {
        return;
    }
    if (told.what == TL_TOLD_REFUSED) {
        tl_out scratch = {m->text, 0, sizeof m->text, false};
        if (told.has_id && told.by_itself && tl_sending_refused(&m->sending, &m->outbox, told.id, &scratch)) {
            tl_log(m->parts.log, TL_LOG_WARNING, "a message was refused for good", (tl_span){0});
        }
        return;
    }
    const bool answer = told.what == TL_TOLD_ANSWER;
    if (!answer || told.hello_boot == m->greeted_boot) {
        const tl_taken taken =
            tl_sending_accepted(&m->sending, &m->outbox, told.number, now_ms, tl_messages_random(m));
        if (taken == TL_TAKEN_RENUMBERED) {
            tl_log(m->parts.log, TL_LOG_WARNING, "numbered anew: the counter had gone back", (tl_span){0});
        } else if (answer) {
            /* Of a device without a counter only this lets it count. */
            m->answered = m->outbox.counting || tl_outbox_begin(&m->outbox, 0);
            tl_sending_answered(&m->sending);
        }
    }
    if (answer) {
        check_prefix(m, (tl_span){told.prefix, told.prefix_n});
    }
}

static void hear(tl_messages *m, tl_span topic, tl_span raw)
{
    tl_span prefix;
    tl_command command;
    tl_desired desired;
    const tl_kind kind = tl_topic_kind(topic, &prefix);
    if (m->state != TL_MESSAGES_UP || kind == TL_KIND_NONE || !tl_same(prefix, m->broker.prefix)) {
        return;
    }
    if (kind == TL_KIND_ACCEPTED) {
        hear_accepted(m, raw);
    } else if (kind == TL_KIND_CMD && tl_told_command(raw, &command)) {
        tl_commands_offer(&m->commands, &command, tl_messages_now(m));
    } else if (kind == TL_KIND_CONFIG && tl_told_desired(raw, &desired)) {
        tl_configuration_tell(&m->configuration, &desired);
    }
}

void tl_messages_event(tl_messages *m, const tl_event *event)
{
    switch (event->kind) {
    case TL_EVENT_NETWORK_UP:
        m->network = true;
        if (!connected_or_about(m)) {
            m->dial_at = tl_messages_now(m) + TL_SETTLE_MS;
        }
        break;
    case TL_EVENT_NETWORK_DOWN:
        m->network = false;
        leave(m, "the network went");
        break;
    case TL_EVENT_MQTT_CONNECTED:
        if (m->state == TL_MESSAGES_CONNECTING) {
            opened(m);
        }
        break;
    case TL_EVENT_MQTT_MESSAGE:
        hear(m, event->topic, event->bytes);
        mqtt_of(m)->release(mqtt_of(m)->with, event->bytes);
        break;
    case TL_EVENT_MQTT_TAKEN:
        m->untaken = m->untaken > 0 ? (uint8_t)(m->untaken - 1) : 0;
        break;
    case TL_EVENT_MQTT_LOST:
        if (connected_or_about(m)) {
            end(m, TL_ENDING_LOST, event->why);
        }
        break;
    default:
        break;
    }
}

uint64_t tl_session_run(tl_messages *m, uint64_t now_ms)
{
    if (m->state == TL_MESSAGES_WAITING && m->network && m->may_dial && now_ms >= m->dial_at) {
        if (m->has_broker) {
            dial(m);
        } else {
            m->state = TL_MESSAGES_ASKING;
        }
    }
    if (m->state == TL_MESSAGES_CONNECTING && now_ms >= m->dial_at) {
        end(m, TL_ENDING_LOST, "not connected in time");
    }
    if (m->state == TL_MESSAGES_CONNECTING) {
        return m->dial_at;
    }
    if (m->state == TL_MESSAGES_WAITING) {
        return m->network && m->may_dial ? m->dial_at : TL_NEVER_DUE;
    }
    if (m->state != TL_MESSAGES_UP) {
        return TL_NEVER_DUE;
    }
    say_hello(m, now_ms);
    say_acks(m, now_ms);
    say_entries(m, now_ms);
    uint64_t due = m->answered ? TL_NEVER_DUE : m->hello_at;
    if (m->untaken < TL_UNTAKEN_MAX) {
        due = earlier(due, tl_sending_due(&m->sending, &m->outbox, now_ms));
        if (m->commands.ack_count > 0) {
            due = now_ms;
        }
        due = due > m->publish_at ? due : m->publish_at;
    }
    return due;
}
