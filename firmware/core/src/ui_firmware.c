/* An image that is uploaded: its bytes go on as they come. */
#include "towline/bytes.h"
#include "ui_parts.h"

enum { BAD = 400, CONFLICT = 409, UNPROCESSABLE = 422 };

static uint16_t judged(tl_exchange *x, const char *why)
{
    return why != NULL ? tl_ui_no(x, UNPROCESSABLE, why) : 0;
}

uint16_t tl_ui_firmware_begin(tl_exchange *x)
{
    tl_ui *ui = tl_ui_of(x);
    const tl_http_request *request = x->origin.request;
    if (request->content_length == 0) {
        return tl_ui_no(x, BAD, "An image comes with its length.");
    }
    if (ui->receiving) {
        return tl_ui_no(x, CONFLICT, "Another image is coming.");
    }
    /* The same version again is for whoever stands before the device. */
    const bool force = !x->origin.by_tunnel && tl_is(request->query, "force");
    const uint16_t status = judged(x, ui->calls->image_begin(ui->device, request->content_length, force));
    ui->receiving = status == 0;
    return status;
}

uint16_t tl_ui_firmware_body(tl_exchange *x, tl_span piece, bool last)
{
    tl_ui *ui = tl_ui_of(x);
    const char *why = last ? ui->calls->image_end(ui->device) : ui->calls->image_add(ui->device, piece);
    x->progress = last || why != NULL; /* it is over: what comes from now on may be another's */
    return judged(x, why);
}

void tl_ui_firmware_over(tl_exchange *x)
{
    tl_ui *ui = tl_ui_of(x);
    ui->receiving = false;
    if (x->progress == 0) {
        ui->calls->image_drop(ui->device);
    }
}
