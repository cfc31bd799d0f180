#include "towline/bodies.h"

#include "towline/bytes.h"

void tl_json_put_member(tl_json_writer *w, const char *name, int64_t value)
{
    tl_json_put_name(w, name);
    tl_json_put_whole(w, value);
}

void tl_json_put_member_text(tl_json_writer *w, const char *name, tl_span text)
{
    tl_json_put_name(w, name);
    tl_json_put_text(w, text);
}

/* null where it is not there */
static void put_or_null(tl_json_writer *w, const char *name, int64_t value, bool there)
{
    tl_json_put_name(w, name);
    if (there) {
        tl_json_put_whole(w, value);
    } else {
        tl_json_put_null(w);
    }
}

void tl_put_outbox_report(tl_json_writer *w, const tl_outbox_report *report)
{
    tl_json_put_name(w, "outbox");
    tl_json_open(w, '{');
    tl_json_put_member(w, "entries", report->entries);
    tl_json_put_member(w, "bytes", report->bytes);
    tl_json_put_member(w, "dropped", report->dropped);
    tl_json_put_member(w, "refused", report->refused);
    tl_json_close(w, '}');
}

void tl_put_hello_body(tl_out *out, const tl_hello_body *hello)
{
    tl_json_writer w = tl_json_to(out);
    tl_json_open(&w, '{');
    tl_json_put_member(&w, "boot", (int64_t)hello->boot);
    tl_json_put_member_text(&w, "instance", tl_text(hello->instance));
    tl_json_put_member_text(&w, "software", tl_text(hello->software));
    tl_json_put_member_text(&w, "type", tl_text(hello->type));
    tl_json_put_name(&w, "commands");
    tl_json_open(&w, '[');
    for (size_t i = 0; i < hello->command_count; i++) {
        tl_json_put_text(&w, tl_text(hello->commands[i]));
    }
    tl_json_close(&w, ']');
    put_or_null(&w, "config", (int64_t)hello->config, hello->config != 0);
    if (hello->outbox != NULL) {
        tl_put_outbox_report(&w, hello->outbox);
    }
    tl_json_close(&w, '}');
}

void tl_put_gone_body(tl_out *out, const char *instance)
{
    tl_put_text(out, "{\"gone\":true,\"instance\":\"");
    tl_put_text(out, instance);
    tl_put_text(out, "\"}");
}

void tl_put_ack_body(tl_out *out, const tl_ack_body *ack)
{
    static const char *const stages[] = {"received", "done", "refused"};
    tl_json_writer w = tl_json_to(out);
    uint8_t id[36];
    tl_out text = {id, 0, sizeof id, false};
    tl_put_uuid(&text, ack->command);
    tl_json_open(&w, '{');
    tl_json_put_member_text(&w, "command", (tl_span){id, text.n});
    tl_json_put_member_text(&w, "stage", tl_text(stages[ack->stage]));
    put_or_null(&w, "at", ack->at_ms, ack->at_ms >= 0);
    if (ack->stage == TL_STAGE_DONE) {
        tl_json_put_name(&w, "ok");
        tl_json_put_bool(&w, ack->ok);
    }
    if (ack->result.n > 0) {
        tl_json_put_name(&w, "result");
        tl_json_put_raw(&w, ack->result);
    }
    if (ack->error.n > 0) {
        tl_json_put_member_text(&w, "error", ack->error);
    }
    tl_json_close(&w, '}');
}

void tl_put_reported_body(tl_out *out, const tl_reported_body *reported)
{
    tl_json_writer w = tl_json_to(out);
    tl_json_open(&w, '{');
    put_or_null(&w, "version", (int64_t)reported->version, reported->version != 0);
    if (reported->sha256 != NULL) {
        uint8_t text[64];
        tl_out hex = {text, 0, sizeof text, false};
        tl_put_hex(&hex, (tl_span){reported->sha256, 32});
        tl_json_put_member_text(&w, "sha256", (tl_span){text, hex.n});
    }
    if (reported->told != 0) {
        tl_json_put_member(&w, "told", (int64_t)reported->told);
    }
    if (reported->error.n > 0) {
        tl_json_put_member_text(&w, "error", reported->error);
    }
    tl_json_close(&w, '}');
}
