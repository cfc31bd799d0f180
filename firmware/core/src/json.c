#include "towline/json.h"

#include <string.h>

#include "towline/bytes.h"

typedef struct {
    const uint8_t *at, *end;
    uint32_t objects;  /* bit n: level n is an object */
    uint32_t repeated; /* bit n: a member of level n was there twice; no such level is left but by refusal */
    unsigned depth;
    bool odd;
    const uint8_t *from[TL_JSON_DEPTH_MAX]; /* where the text of each open level begins */
} scanner;

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static void skip_space(scanner *s)
{
    while (s->at < s->end && is_space(*s->at)) {
        s->at++;
    }
}

/* --- UTF-8 --- */

/* Bytes of a character that is known to be one. */
static size_t utf8_length(uint8_t lead)
{
    return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

static size_t utf8_encode(uint32_t c, uint8_t to[4])
{
    if (c < 0x80) {
        to[0] = (uint8_t)c;
        return 1;
    }
    const size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) {
        to[i] = (uint8_t)(0x80 | (c & 0x3f));
    }
    to[0] = (uint8_t)((0xf00 >> n) | c);
    return n;
}

/* --- strings --- */

static int hex_digit(uint8_t c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits of a \u escape, or -1. */
static int32_t hex4(const uint8_t *at, const uint8_t *end)
{
    if (end - at < 4) {
        return -1;
    }
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const int digit = hex_digit(at[i]);
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

static uint8_t short_escape(uint8_t c)
{
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    for (size_t i = 0; i < sizeof names - 1; i++) {
        if (c == (uint8_t)names[i]) {
            return (uint8_t)means[i];
        }
    }
    return 0;
}

#define NO_CHARACTER UINT32_MAX

/* The next character of a string's text, moving past it; NO_CHARACTER for an escape that is none. Halves of
 * surrogate pairs come as they are. Bytes beyond ASCII come one by one, marked: only their equality counts.
 */
static uint32_t escaped(tl_span *rest)
{
    const uint8_t *at = rest->at + 1, *end = rest->at + rest->n; /* behind the backslash */
    if (at == end) {
        return NO_CHARACTER;
    }
    uint32_t c = short_escape(*at++);
    if (c == 0) {
        int32_t unit = at[-1] == 'u' ? hex4(at, end) : -1;
        if (unit < 0) {
            return NO_CHARACTER;
        }
        at += 4;
        c = (uint32_t)unit;
        if (c >= 0xd800 && c < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
            unit = hex4(at + 2, end);
            if (unit >= 0xdc00 && unit < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)unit - 0xdc00);
                at += 6;
            }
        }
    }
    *rest = (tl_span){at, (size_t)(end - at)};
    return c;
}

/* The next character of checked text as UTF-8; its length. */
static size_t next_character(tl_span *rest, uint8_t to[4])
{
    if (rest->at[0] == '\\') {
        return utf8_encode(escaped(rest), to);
    }
    const size_t n = utf8_length(rest->at[0]);
    memcpy(to, rest->at, n);
    *rest = (tl_span){rest->at + n, rest->n - n};
    return n;
}

/* At the opening quote; moves behind the closing one. */
static bool scan_string(scanner *s, tl_span *text)
{
    const uint8_t *from = ++s->at;
    while (s->at < s->end) {
        const uint8_t c = *s->at;
        if (c == '"') {
            *text = (tl_span){from, (size_t)(s->at++ - from)};
            return true;
        }
        if (c < 0x20) {
            return false;
        }
        if (c != '\\') {
            s->at++;
            continue;
        }
        tl_span rest = {s->at, (size_t)(s->end - s->at)};
        const uint32_t character = escaped(&rest);
        if (character == NO_CHARACTER) {
            return false;
        }
        if (character == 0 || (character >= 0xd800 && character < 0xe000)) {
            s->odd = true;
        }
        s->at = rest.at;
    }
    return false;
}

/* --- numbers --- */

/* The halfway between the largest double and the next: from here on a reader rounds to infinity. */
static const char LARGEST[] = "17976931348623158079";
#define LARGEST_EXPONENT 308
#define EXPONENT_CAP 1000000 /* longer ones count as this: no text is so long that it matters */

typedef struct {
    tl_span whole, fraction;
    int32_t exponent;
    bool plain; /* neither fraction nor exponent */
} numeral;

static tl_span digits(scanner *s)
{
    const uint8_t *from = s->at;
    while (s->at < s->end && is_digit(*s->at)) {
        s->at++;
    }
    return (tl_span){from, (size_t)(s->at - from)};
}

static bool scan_exponent(scanner *s, numeral *n)
{
    bool negative = false;
    if (s->at < s->end && (*s->at == '+' || *s->at == '-')) {
        negative = *s->at++ == '-';
    }
    const tl_span found = digits(s);
    for (size_t i = 0; i < found.n && n->exponent < EXPONENT_CAP; i++) {
        n->exponent = n->exponent * 10 + (found.at[i] - '0');
    }
    if (negative) {
        n->exponent = -n->exponent;
    }
    return found.n != 0;
}

static uint8_t digit_at(const numeral *n, size_t i)
{
    if (i < n->whole.n) {
        return n->whole.at[i];
    }
    return i - n->whole.n < n->fraction.n ? n->fraction.at[i - n->whole.n] : '0';
}

/* Whether a reader of doubles makes a finite one of it. */
static bool is_finite(const numeral *n)
{
    const size_t count = n->whole.n + n->fraction.n;
    size_t first = 0;
    while (first < count && digit_at(n, first) == '0') {
        first++;
    }
    if (first == count) {
        return true; /* zero, whatever the exponent */
    }
    const int64_t power = (int64_t)n->whole.n - 1 - (int64_t)first + n->exponent;
    if (power != LARGEST_EXPONENT) {
        return power < LARGEST_EXPONENT;
    }
    for (size_t i = 0; i < sizeof LARGEST - 1; i++) {
        const uint8_t digit = digit_at(n, first + i);
        if (digit != (uint8_t)LARGEST[i]) {
            return digit < (uint8_t)LARGEST[i];
        }
    }
    return false;
}

static bool scan_number(scanner *s)
{
    const uint8_t *from = s->at;
    numeral n = {.plain = true};
    if (*s->at == '-') {
        s->at++;
    }
    n.whole = digits(s);
    if (n.whole.n == 0 || (n.whole.n > 1 && n.whole.at[0] == '0')) {
        return false;
    }
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        n.plain = false;
        n.fraction = digits(s);
        if (n.fraction.n == 0) {
            return false;
        }
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        n.plain = false;
        if (!scan_exponent(s, &n)) {
            return false;
        }
    }
    return n.plain ? s->at - from <= TL_JSON_INTEGER_MAX : is_finite(&n);
}

/* --- the check --- */

static bool scan_word(scanner *s, const char *word)
{
    const tl_span wanted = tl_text(word);
    if ((size_t)(s->end - s->at) < wanted.n || memcmp(s->at, wanted.at, wanted.n) != 0) {
        return false;
    }
    s->at += wanted.n;
    return true;
}

static bool scan_scalar(scanner *s)
{
    tl_span text;
    switch (*s->at) {
    case '"': return scan_string(s, &text);
    case 'n': return scan_word(s, "null");
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    default: return (*s->at == '-' || is_digit(*s->at)) && scan_number(s);
    }
}

/* Compares a member's name with those of its object before it. */
static tl_json_fault look_for_twin(scanner *s, const tl_json *name)
{
    const uint8_t *from = s->from[s->depth - 1];
    tl_span rest = {from, (size_t)(name->text.at - 1 - from)};
    tl_json earlier, value;
    size_t members = 1;
    while (tl_json_next_member(&rest, &earlier, &value)) {
        if (++members > TL_JSON_MEMBERS_MAX) {
            return TL_JSON_TOO_MANY;
        }
        if (tl_json_alike(&earlier, name)) {
            s->repeated |= 1u << s->depth;
        }
    }
    return TL_JSON_FINE;
}

/* At a member's name; moves to its value. */
static tl_json_fault scan_name(scanner *s)
{
    tl_json name = {TL_JSON_STRING, {0}};
    skip_space(s);
    if (s->at == s->end || *s->at != '"' || !scan_string(s, &name.text)) {
        return TL_JSON_NO_JSON;
    }
    const tl_json_fault fault = look_for_twin(s, &name);
    if (fault != TL_JSON_FINE) {
        return fault;
    }
    skip_space(s);
    if (s->at == s->end || *s->at++ != ':') {
        return TL_JSON_NO_JSON;
    }
    return TL_JSON_FINE;
}

/* At a bracket that opens. `empty`: it is closed again already. */
static tl_json_fault scan_open(scanner *s, bool *empty)
{
    const bool object = *s->at++ == '{';
    if (s->depth == TL_JSON_DEPTH_MAX) {
        return TL_JSON_TOO_DEEP;
    }
    skip_space(s);
    *empty = s->at < s->end && *s->at == (object ? '}' : ']');
    if (*empty) {
        s->at++;
        return TL_JSON_FINE;
    }
    s->from[s->depth++] = s->at;
    const uint32_t bit = 1u << s->depth;
    s->objects = object ? s->objects | bit : s->objects & ~bit;
    return object ? scan_name(s) : TL_JSON_FINE;
}

/* Behind a value: closes what ends there; TL_JSON_FINE with depth > 0 means that another value follows. */
static tl_json_fault scan_behind(scanner *s)
{
    while (s->depth > 0) {
        const uint32_t bit = 1u << s->depth;
        const bool object = (s->objects & bit) != 0;
        skip_space(s);
        if (s->at == s->end) {
            return TL_JSON_NO_JSON;
        }
        const uint8_t c = *s->at++;
        if (c == ',') {
            return object ? scan_name(s) : TL_JSON_FINE;
        }
        if (c != (object ? '}' : ']')) {
            return TL_JSON_NO_JSON;
        }
        if ((s->repeated & bit) != 0) {
            return TL_JSON_TWICE;
        }
        s->depth--;
    }
    return TL_JSON_FINE;
}

static tl_json_fault scan_all(scanner *s)
{
    do {
        tl_json_fault fault = TL_JSON_FINE;
        bool whole = true;
        skip_space(s);
        if (s->at == s->end) {
            return TL_JSON_NO_JSON;
        }
        if (*s->at == '{' || *s->at == '[') {
            fault = scan_open(s, &whole);
        } else if (!scan_scalar(s)) {
            return TL_JSON_NO_JSON;
        }
        if (fault == TL_JSON_FINE && whole) {
            fault = scan_behind(s);
        }
        if (fault != TL_JSON_FINE) {
            return fault;
        }
    } while (s->depth > 0);
    skip_space(s);
    return s->at == s->end ? TL_JSON_FINE : TL_JSON_NO_JSON;
}

tl_json_fault tl_json_check(tl_span text, tl_json *value)
{
    if (!tl_is_utf8(text)) {
        return TL_JSON_NO_UTF8;
    }
    scanner s = {.at = text.at, .end = text.at + text.n};
    const tl_json_fault fault = scan_all(&s);
    if (fault != TL_JSON_FINE) {
        return fault;
    }
    if (s.odd) {
        return TL_JSON_ODD_TEXT;
    }
    (void)tl_json_next_item(&text, value);
    return TL_JSON_FINE;
}

/* --- walking: the text was checked, so only its ends are looked for --- */

/* Moves `rest` behind white space and what stands between two values. */
static void skip_between(tl_span *rest)
{
    while (rest->n > 0 && (is_space(*rest->at) || *rest->at == ',' || *rest->at == ':')) {
        *rest = (tl_span){rest->at + 1, rest->n - 1};
    }
}

static size_t string_end(tl_span text, size_t i)
{
    for (i++; i < text.n && text.at[i] != '"'; i++) {
        if (text.at[i] == '\\') {
            i++;
        }
    }
    return i + 1;
}

/* The length of the value at the begin of the text. */
static size_t value_length(tl_span text)
{
    size_t i = 0;
    unsigned depth = 0;
    do {
        const uint8_t c = text.at[i];
        if (c == '"') {
            i = string_end(text, i);
            continue;
        }
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (depth == 0) {
            while (i < text.n && text.at[i] != ',' && text.at[i] != '}' && text.at[i] != ']' &&
                   !is_space(text.at[i])) {
                i++;
            }
            return i;
        }
        i++;
    } while (depth > 0 && i < text.n);
    return i < text.n ? i : text.n;
}

static tl_json_kind kind_of(uint8_t first)
{
    switch (first) {
    case '{': return TL_JSON_OBJECT;
    case '[': return TL_JSON_LIST;
    case '"': return TL_JSON_STRING;
    case 'n': return TL_JSON_NULL;
    case 't': return TL_JSON_TRUE;
    case 'f': return TL_JSON_FALSE;
    default: return TL_JSON_NUMBER;
    }
}

bool tl_json_next_item(tl_span *rest, tl_json *item)
{
    skip_between(rest);
    if (rest->n == 0) {
        return false;
    }
    const size_t length = value_length(*rest);
    item->kind = kind_of(*rest->at);
    item->text = (tl_span){rest->at, length};
    if (item->kind >= TL_JSON_STRING) {
        item->text = (tl_span){rest->at + 1, length - 2};
    }
    *rest = (tl_span){rest->at + length, rest->n - length};
    return true;
}

bool tl_json_next_member(tl_span *rest, tl_json *name, tl_json *value)
{
    return tl_json_next_item(rest, name) && tl_json_next_item(rest, value);
}

bool tl_json_member(const tl_json *object, const char *name, tl_json *value)
{
    if (object->kind != TL_JSON_OBJECT) {
        return false;
    }
    tl_span rest = object->text;
    tl_json found;
    while (tl_json_next_member(&rest, &found, value)) {
        if (tl_json_says(&found, tl_text(name))) {
            return true;
        }
    }
    return false;
}

bool tl_json_says(const tl_json *string, tl_span text)
{
    if (string->kind != TL_JSON_STRING) {
        return false;
    }
    tl_span rest = string->text;
    uint8_t character[4];
    while (rest.n > 0) {
        const size_t n = next_character(&rest, character);
        if (n > text.n || memcmp(character, text.at, n) != 0) {
            return false;
        }
        text = (tl_span){text.at + n, text.n - n};
    }
    return text.n == 0;
}

bool tl_json_alike(const tl_json *one, const tl_json *other)
{
    if (one->kind != TL_JSON_STRING || other->kind != TL_JSON_STRING) {
        return false;
    }
    tl_span a = one->text, b = other->text;
    uint8_t left[4], right[4];
    while (a.n > 0 && b.n > 0) {
        const size_t n = next_character(&a, left);
        if (next_character(&b, right) != n || memcmp(left, right, n) != 0) {
            return false;
        }
    }
    return a.n == 0 && b.n == 0;
}

bool tl_json_unescape(const tl_json *string, tl_out *out)
{
    if (string->kind != TL_JSON_STRING) {
        return false;
    }
    const size_t before = out->n;
    tl_span rest = string->text;
    uint8_t character[4];
    while (rest.n > 0 && !out->full) {
        const size_t n = next_character(&rest, character);
        tl_put(out, character, n);
    }
    if (out->full) {
        out->n = before;
    }
    return !out->full;
}

size_t tl_json_length(const tl_json *string)
{
    size_t length = 0;
    uint8_t character[4];
    if (string->kind == TL_JSON_STRING) {
        for (tl_span rest = string->text; rest.n > 0; length++) {
            (void)next_character(&rest, character);
        }
    }
    return length;
}

bool tl_json_whole(const tl_json *number, int64_t least, int64_t most, int64_t *value)
{
    if (number->kind != TL_JSON_NUMBER) {
        return false;
    }
    const bool negative = number->text.at[0] == '-';
    int64_t sum = 0; /* counted downwards: INT64_MIN has no opposite */
    for (size_t i = negative; i < number->text.n; i++) {
        if (!is_digit(number->text.at[i])) {
            return false;
        }
        const int64_t digit = number->text.at[i] - '0';
        if (sum < (INT64_MIN + digit) / 10) {
            return false;
        }
        sum = sum * 10 - digit;
    }
    if (!negative && sum == INT64_MIN) {
        return false;
    }
    *value = negative ? sum : -sum;
    return *value >= least && *value <= most;
}
