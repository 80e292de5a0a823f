/*
 * Reads JSON where it lies: copies nothing, allocates nothing, and never reads outside its text, whatever stands there.
 *
 * A text may be the contents of a string of another text: its characters are then read through that string's
 * escapes, one at a time, as they are needed. packed_file.h reads packed files by it.
 */
#ifndef VQCC_JSON_H_
#define VQCC_JSON_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A place in a text: copy it to come back. Values and keys are places too. */
typedef struct vqcc_json {
  const uint8_t* data;
  size_t at;  /* byte of `data` that is next */
  size_t end; /* of the text */
  int layers; /* strings that the text is the contents of: 0 or 1 */
} vqcc_json;

typedef enum vqcc_json_error {
  VQCC_JSON_OK = 0,
  VQCC_JSON_MALFORMED = 1, /* not JSON, or not UTF-8 */
  VQCC_JSON_NESTING = 2,   /* deeper than VQCC_JSON_MOST_NESTING */
  VQCC_JSON_DUPLICATE = 3  /* an object has a key twice */
} vqcc_json_error;

/* In place of a character: the text, or string, has ended; or what is next is none. */
#define VQCC_JSON_END (-1)
#define VQCC_JSON_NONE (-2)

#define VQCC_JSON_MOST_NESTING 32
#define VQCC_JSON_MOST_NUMBER 4300u /* characters of a number; Python's reader takes as many digits */
#define VQCC_JSON_KEYS 1024         /* keys that one pass over an object compares with those behind them */
#define VQCC_JSON_SLOTS 2048u

/* The next character as UTF-8 has it: not overlong, no surrogate. */
static inline int32_t vqcc_json_utf8(vqcc_json* text) {
  if (text->at >= text->end) return VQCC_JSON_END;
  const uint8_t* bytes = text->data + text->at;
  if (bytes[0] < 0x80) return text->data[text->at++];
  const size_t length = bytes[0] < 0xc0 ? 0 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : bytes[0] < 0xf8 ? 4 : 0;
  if (length == 0 || length > text->end - text->at) return VQCC_JSON_NONE;
  int32_t character = bytes[0] & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((bytes[i] & 0xc0) != 0x80) return VQCC_JSON_NONE;
    character = character << 6 | (bytes[i] & 0x3f);
  }
  const int32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  if (character < least || character > 0x10ffff || (character >> 11) == 0x1b) return VQCC_JSON_NONE;
  text->at += length;
  return character;
}

static inline int32_t vqcc_json_escape(vqcc_json* text, int layers);

/* The next character, read through the escapes of so many strings. */
static inline int32_t vqcc_json_character(vqcc_json* text, int layers) {
  if (text->at < text->end && text->data[text->at] < 0x80 && text->data[text->at] != '\\') {
    return text->data[text->at++]; /* itself, in all of them */
  }
  int32_t character = vqcc_json_utf8(text);
  for (int layer = 0; layer < layers && character == '\\'; ++layer) character = vqcc_json_escape(text, layer);
  return character;
}

/* The number of four hexadecimal digits, or VQCC_JSON_NONE. */
static inline int32_t vqcc_json_hexadecimal(vqcc_json* text, int layers) {
  int32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const int32_t digit = vqcc_json_character(text, layers);
    if (digit >= '0' && digit <= '9') {
      value = value << 4 | (digit - '0');
    } else if ((digit >= 'a' && digit <= 'f') || (digit >= 'A' && digit <= 'F')) {
      value = value << 4 | ((digit & 0xf) + 9);
    } else {
      return VQCC_JSON_NONE;
    }
  }
  return value;
}

/* The character of an escape whose backslash has been read. Half a surrogate pair is none: UTF-8 cannot hold it. */
static inline int32_t vqcc_json_escape(vqcc_json* text, int layers) {
  const int32_t letter = vqcc_json_character(text, layers);
  switch (letter) {
    case '"':
    case '\\':
    case '/': return letter;
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': break;
    default: return VQCC_JSON_NONE;
  }
  const int32_t first = vqcc_json_hexadecimal(text, layers);
  if (first < 0 || (first >> 11) != 0x1b) return first;
  if ((first >> 10) != 0x36 || vqcc_json_character(text, layers) != '\\') return VQCC_JSON_NONE;
  if (vqcc_json_character(text, layers) != 'u') return VQCC_JSON_NONE;
  const int32_t second = vqcc_json_hexadecimal(text, layers);
  if (second < 0 || (second >> 10) != 0x37) return VQCC_JSON_NONE;
  return 0x10000 + ((first & 0x3ff) << 10 | (second & 0x3ff));
}

static inline int vqcc_json_is_plain(uint8_t byte) {
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* The next character of the string that the text is in; VQCC_JSON_END once, for its closing quote. */
static inline int32_t vqcc_json_in_string(vqcc_json* text) {
  const int32_t character = vqcc_json_character(text, text->layers);
  if (character == '"') return VQCC_JSON_END;
  if (character == '\\') return vqcc_json_escape(text, text->layers);
  return character < 0x20 ? VQCC_JSON_NONE : character;
}

static inline int vqcc_json_is_space(int32_t character) {
  return character == ' ' || character == '\t' || character == '\n' || character == '\r';
}

/* Skips white space; the character after it is returned, and stays. */
static inline int32_t vqcc_json_peek(vqcc_json* text) {
  for (;;) {
    const size_t at = text->at;
    const int32_t character = vqcc_json_character(text, text->layers);
    if (vqcc_json_is_space(character)) continue;
    text->at = at;
    return character;
  }
}

/* Goes past `character`, white space before it included, if it is next. */
static inline int vqcc_json_accept(vqcc_json* text, int32_t character) {
  for (;;) {
    const size_t at = text->at;
    const int32_t next = vqcc_json_character(text, text->layers);
    if (next == character) return 1;
    if (vqcc_json_is_space(next)) continue;
    text->at = at;
    return 0;
  }
}

/* Goes past the characters of `word` up to the first that is not next: true if all were. */
static inline int vqcc_json_word(vqcc_json* text, const char* word) {
  for (; *word != '\0'; ++word) {
    if (vqcc_json_character(text, text->layers) != *word) return 0;
  }
  return 1;
}

/* Goes past a character that is one of `set`, if it is next. */
static inline int vqcc_json_one_of(vqcc_json* text, const char* set) {
  const size_t at = text->at;
  const int32_t character = vqcc_json_character(text, text->layers);
  for (; *set != '\0'; ++set) {
    if (character == *set) return 1;
  }
  text->at = at;
  return 0;
}

static inline int vqcc_json_skip_digits(vqcc_json* text) {
  int some = 0;
  while (vqcc_json_one_of(text, "0123456789")) some = 1;
  return some;
}

static inline int vqcc_json_skip_number(vqcc_json* text) {
  const size_t begin = text->at;
  (void)vqcc_json_one_of(text, "-");
  if (!vqcc_json_one_of(text, "0") && !vqcc_json_skip_digits(text)) return 0;
  if (vqcc_json_one_of(text, ".") && !vqcc_json_skip_digits(text)) return 0;
  if (vqcc_json_one_of(text, "eE")) {
    (void)vqcc_json_one_of(text, "+-");
    if (!vqcc_json_skip_digits(text)) return 0;
  }
  return text->at - begin <= VQCC_JSON_MOST_NUMBER;
}

/* Goes past the rest of a string whose opening quote has been read. */
static inline int vqcc_json_skip_string(vqcc_json* text) {
  for (;;) {
    /* What stands for itself in strings of strings too: most of a header. */
    while (text->at < text->end && vqcc_json_is_plain(text->data[text->at])) ++text->at;
    const int32_t character = vqcc_json_in_string(text);
    if (character < 0) return character == VQCC_JSON_END;
  }
}

static inline int vqcc_json_skip_scalar(vqcc_json* text) {
  switch (vqcc_json_peek(text)) {
    case '"': return vqcc_json_accept(text, '"') && vqcc_json_skip_string(text);
    case 't': return vqcc_json_word(text, "true");
    case 'f': return vqcc_json_word(text, "false");
    case 'n': return vqcc_json_word(text, "null");
    default: return vqcc_json_skip_number(text);
  }
}

static inline int vqcc_json_skip_key(vqcc_json* text) {
  return vqcc_json_accept(text, '"') && vqcc_json_skip_string(text) && vqcc_json_accept(text, ':');
}

static inline vqcc_json_error vqcc_json_check_keys(vqcc_json* object);

/* Goes past a value, or to the place where it is none. With `check_keys` no object of it may have a key twice. */
static inline vqcc_json_error vqcc_json_skip(vqcc_json* text, int check_keys) {
  uint64_t objects = 0; /* a bit for each level that is open: whether it is an object; the innermost is the lowest */
  int depth = 0;
  for (;;) {
    const int32_t character = vqcc_json_peek(text);
    if (character == '{' || character == '[') {
      const int is_object = character == '{';
      if (depth == VQCC_JSON_MOST_NESTING) return VQCC_JSON_NESTING;
      if (is_object && check_keys) {
        const vqcc_json_error error = vqcc_json_check_keys(text);
        if (error != VQCC_JSON_OK) return error;
      }
      (void)vqcc_json_accept(text, character);
      objects = objects << 1 | (uint64_t)is_object;
      ++depth;
      if (vqcc_json_peek(text) != (is_object ? '}' : ']')) {
        if (is_object && !vqcc_json_skip_key(text)) return VQCC_JSON_MALFORMED;
        continue;
      }
    } else if (!vqcc_json_skip_scalar(text)) {
      return VQCC_JSON_MALFORMED;
    }
    /* A value has ended, and with it perhaps what it is in. */
    while (depth > 0 && !vqcc_json_accept(text, ',')) {
      if (!vqcc_json_accept(text, (objects & 1) != 0 ? '}' : ']')) return VQCC_JSON_MALFORMED;
      objects >>= 1;
      --depth;
    }
    if (depth == 0) return VQCC_JSON_OK;
    if ((objects & 1) != 0 && !vqcc_json_skip_key(text)) return VQCC_JSON_MALFORMED;
  }
}

/* Steps through an object: finds the next key, behind its opening quote, and its value. `object` is at the opening
 * brace before the first step. */
static inline int vqcc_json_member(vqcc_json* object, vqcc_json* key, vqcc_json* value) {
  if (!vqcc_json_accept(object, '{') && !vqcc_json_accept(object, ',')) return 0;
  if (!vqcc_json_accept(object, '"')) return 0;
  *key = *object;
  if (!vqcc_json_skip_string(object) || !vqcc_json_accept(object, ':')) return 0;
  *value = *object;
  return vqcc_json_skip(object, 0) == VQCC_JSON_OK;
}

/* Steps through an array as vqcc_json_member does through an object. */
static inline int vqcc_json_item(vqcc_json* array, vqcc_json* value) {
  if (!vqcc_json_accept(array, '[') && !vqcc_json_accept(array, ',')) return 0;
  *value = *array;
  return vqcc_json_peek(array) != ']' && vqcc_json_skip(array, 0) == VQCC_JSON_OK;
}

/* Whether string `one` has the characters of string `other`, then those of `ending`, which is ASCII. */
static inline int vqcc_json_same(vqcc_json one, vqcc_json other, const char* ending) {
  for (int ended = 0;;) {
    const int32_t character = vqcc_json_in_string(&one);
    int32_t wanted = ended ? VQCC_JSON_END : vqcc_json_in_string(&other);
    if (wanted == VQCC_JSON_END) {
      ended = 1;
      if (*ending != '\0') wanted = *ending++;
    }
    if (character != wanted || character == VQCC_JSON_NONE) return 0;
    if (character == VQCC_JSON_END) return 1;
  }
}

/* Whether a string has the characters of `text`, UTF-8. */
static inline int vqcc_json_is(vqcc_json string, const char* text) {
  vqcc_json wanted = {(const uint8_t*)text, 0, 0, 0};
  wanted.end = strlen(text);
  for (;;) {
    const int32_t character = vqcc_json_in_string(&string);
    if (character != vqcc_json_utf8(&wanted) || character == VQCC_JSON_NONE) return 0;
    if (character == VQCC_JSON_END) return 1;
  }
}

/* Whether the object that begins here has no key twice, as far as it is one. Keys are held in a table, as many as
 * it has room for, and compared with all that follow them; another pass takes the next ones. */
static inline vqcc_json_error vqcc_json_check_keys(vqcc_json* object) {
  vqcc_json rest = *object, key = rest, value;
  for (;;) {
    uint32_t slots[VQCC_JSON_SLOTS]; /* places of keys behind that of the object, which are never 0 */
    int held = 0;
    memset(slots, 0, sizeof slots);
    for (vqcc_json place = rest; vqcc_json_member(&place, &key, &value);) {
      uint32_t hash = 2166136261u; /* FNV-1a */
      vqcc_json string = key;
      for (int32_t c = vqcc_json_in_string(&string); c >= 0; c = vqcc_json_in_string(&string)) {
        hash = (hash ^ (uint32_t)c) * 16777619u;
      }
      uint32_t slot = (hash ^ hash >> 16) % VQCC_JSON_SLOTS;
      for (; slots[slot] != 0; slot = (slot + 1) % VQCC_JSON_SLOTS) {
        string.at = object->at + slots[slot];
        if (!vqcc_json_same(string, key, "")) continue;
        object->at = key.at;
        return VQCC_JSON_DUPLICATE;
      }
      if (held == VQCC_JSON_KEYS) continue;
      slots[slot] = (uint32_t)(key.at - object->at);
      if (++held == VQCC_JSON_KEYS) rest = place;
    }
    if (held < VQCC_JSON_KEYS) return VQCC_JSON_OK;
  }
}

/* Whether `object` is an object that has `name`; then `value` is its value. */
static inline int vqcc_json_field(vqcc_json object, const char* name, vqcc_json* value) {
  vqcc_json key;
  while (vqcc_json_member(&object, &key, value)) {
    if (vqcc_json_is(key, name)) return 1;
  }
  return 0;
}

/* Whether `object` has `name` and its value is a string; then `string` is behind its opening quote. */
static inline int vqcc_json_string_field(vqcc_json object, const char* name, vqcc_json* string) {
  return vqcc_json_field(object, name, string) && vqcc_json_accept(string, '"');
}

/* Whether a value is an integer from 0 to 2^63 - 1, written as one. */
static inline int vqcc_json_natural(vqcc_json value, uint64_t* natural) {
  int digits = 0;
  (void)vqcc_json_peek(&value);
  for (*natural = 0;; ++digits) {
    const int32_t character = vqcc_json_character(&value, value.layers);
    if (character < '0' || character > '9') {
      return digits > 0 && character != '.' && character != 'e' && character != 'E';
    }
    const uint64_t digit = (uint64_t)(character - '0');
    if (*natural > (UINT64_C(0x7fffffffffffffff) - digit) / 10) return 0;
    *natural = *natural * 10 + digit;
  }
}

/* How many integers from 0 to 2^63 - 1 an array has, or -1 if it has anything else or more than `most`. */
static inline int vqcc_json_naturals(vqcc_json array, uint64_t* naturals, int most) {
  vqcc_json value;
  int count = 0;
  if (vqcc_json_peek(&array) != '[') return -1;
  while (vqcc_json_item(&array, &value)) {
    if (count == most || !vqcc_json_natural(value, &naturals[count++])) return -1;
  }
  return count;
}

/* Copies a string as UTF-8 with a 0 behind it, cut at `capacity`. Returns the bytes that all of it takes, without the
 * 0. */
static inline size_t vqcc_json_copy(vqcc_json string, char* text, size_t capacity) {
  size_t bytes = 0, fitting = 0;
  for (int32_t c = vqcc_json_in_string(&string); c >= 0; c = vqcc_json_in_string(&string)) {
    const int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    const int lead = more == 0 ? 0 : 0xff00 >> (more + 1) & 0xff;
    bytes += (size_t)more + 1;
    if (bytes >= capacity) continue;
    text[fitting++] = (char)(uint8_t)(lead | c >> 6 * more);
    for (int i = more - 1; i >= 0; --i) text[fitting++] = (char)(uint8_t)(0x80 | (c >> 6 * i & 0x3f));
  }
  if (capacity > 0) text[fitting] = '\0';
  return bytes;
}

#endif /* VQCC_JSON_H_ */
