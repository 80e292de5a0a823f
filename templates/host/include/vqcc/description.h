/* What descriptions in packed files have in common: numbers, forms of arrays, and the id of what a file and kernels
 * agree on (docs/packed-layout.md). */
#ifndef VQCC_DESCRIPTION_H_
#define VQCC_DESCRIPTION_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "json.h"
#include "sha256.h"

/* Type and shape that an array must have. */
typedef struct vqcc_array_form {
  const char* dtype;
  int axes;          /* 0: there is no such array */
  uint64_t shape[4]; /* 0: of any length */
} vqcc_array_form;

typedef enum vqcc_description_error {
  VQCC_DESCRIPTION_OK = 0,
  VQCC_DESCRIPTION_UNKNOWN = 1, /* something is missing, malformed, or not known here */
  VQCC_DESCRIPTION_IDENTITY = 2 /* the layout id is not that of what is said beside it */
} vqcc_description_error;

/* Most of any number of a description: kernels index with 32 bits. No product of two is too large for 64. */
#define VQCC_DESCRIPTION_MOST 0x7fffffff

static inline uint64_t vqcc_quotient(uint64_t value, uint64_t divisor) { /* rounded up */
  return value / divisor + (value % divisor != 0);
}

/* The product, or the most that there is. */
static inline uint64_t vqcc_product(uint64_t one, uint64_t other) {
  return other != 0 && one > UINT64_MAX / other ? UINT64_MAX : one * other;
}

static inline vqcc_array_form vqcc_form(const char* dtype, int axes, uint64_t a, uint64_t b, uint64_t c) {
  const vqcc_array_form form = {dtype, axes, {a, b, c, 0}};
  return form;
}

/* A number of an object, from 1 to `most`; 0 if it has none such. */
static inline uint64_t vqcc_description_number(vqcc_json object, const char* name, uint64_t most) {
  vqcc_json value;
  uint64_t number;
  if (!vqcc_json_field(object, name, &value) || !vqcc_json_natural(value, &number)) return 0;
  return number > most ? 0 : number;
}

/* Adds a value to a hash as Python's json.dumps writes it, if its keys are in order and its strings plain. */
static inline int vqcc_description_hash(vqcc_sha256* hash, vqcc_json value) {
  vqcc_json end = value;
  if (vqcc_json_skip(&end, 0) != VQCC_JSON_OK) return 0;
  while (value.at < end.at) {
    const int32_t mark = vqcc_json_peek(&value);
    if (mark < 0 || !vqcc_json_accept(&value, mark)) return 0;
    vqcc_sha256_add(hash, (uint32_t)mark & 0xff);
    if (mark == ',' || mark == ':') vqcc_sha256_add(hash, ' ');
    if (mark != '"') continue;
    int32_t character;
    while ((character = vqcc_json_in_string(&value)) >= 0) {
      if (character > 0x7e || character == '"' || character == '\\') return 0;
      vqcc_sha256_add(hash, (uint32_t)character);
    }
    vqcc_sha256_add(hash, '"');
  }
  return 1;
}

/* Writes the id of what a packed file and kernels agree on: of a list of so many values. */
static inline int vqcc_description_identity(const vqcc_json* list, int count, char digits[13]) {
  vqcc_sha256 hash = vqcc_sha256_start();
  vqcc_sha256_add(&hash, '[');
  for (int i = 0; i < count; ++i) {
    if (i > 0) vqcc_sha256_add(&hash, ',');
    if (i > 0) vqcc_sha256_add(&hash, ' ');
    if (!vqcc_description_hash(&hash, list[i])) return 0;
  }
  vqcc_sha256_add(&hash, ']');
  vqcc_sha256_finish(&hash, digits);
  return 1;
}

#endif /* VQCC_DESCRIPTION_H_ */
