/* RFC 4648 section 10, and back. */
#include "towline/base64.h"
#include "towline/bytes.h"
#include "check.h"

static void encoded_and_back(void)
{
    static const char *const url[] = {"", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"};
    static const char *const pem[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    uint8_t room[400], raw[256], back[256];
    for (size_t n = 0; n <= 6; n++) {
        const tl_span text = {(const uint8_t *)"foobar", n};
        tl_out out = {room, 0, sizeof room, false};
        tl_put_base64url(&out, text);
        CHECK_NAMED(tl_is((tl_span){room, out.n}, url[n]), url[n]);
        out.n = 0;
        tl_put_base64(&out, text);
        CHECK_NAMED(tl_is((tl_span){room, out.n}, pem[n]), pem[n]);
    }
    for (size_t i = 0; i < sizeof raw; i++) {
        raw[i] = (uint8_t)(i * 167);
    }
    for (size_t n = 0; n <= sizeof raw; n++) {
        tl_out out = {room, 0, sizeof room, false}, decoded = {back, 0, sizeof back, false};
        tl_put_base64url(&out, (tl_span){raw, n});
        CHECK(tl_base64url_decode((tl_span){room, out.n}, &decoded) && decoded.n == n && memcmp(back, raw, n) == 0);
    }
    tl_out small = {room, 0, 3, false};
    tl_put_base64url(&small, tl_text("foobar"));
    CHECK(small.full && small.n == 3);
}

int main(void)
{
    static const check_test tests[] = {CHECK_TEST(encoded_and_back)};
    return CHECK_ALL(tests);
}
