/* SHA-256 (FIPS 180-4) of text that comes a byte at a time: readers check by it what a packed file says of itself. */
#ifndef VQCC_SHA256_H_
#define VQCC_SHA256_H_

#include <stddef.h>
#include <stdint.h>

typedef struct vqcc_sha256 {
  uint32_t state[8];
  uint32_t block[16];
  uint64_t bytes;
} vqcc_sha256;

static inline vqcc_sha256 vqcc_sha256_start(void) {
  const vqcc_sha256 start = {{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                              0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u},
                             {0},
                             0};
  return start;
}

static inline uint32_t vqcc_sha256_rotate(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

static inline void vqcc_sha256_mix(vqcc_sha256* hash) {
  static const uint32_t constants[64] = {
      0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
      0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
      0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
      0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
      0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
      0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
      0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
      0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u};
  uint32_t schedule[64], s[8];
  for (int i = 0; i < 8; ++i) s[i] = hash->state[i];
  for (int i = 0; i < 64; ++i) {
    schedule[i] = hash->block[i % 16];
    if (i >= 16) {
      const uint32_t early = schedule[i - 15], late = schedule[i - 2];
      schedule[i] = schedule[i - 16] + schedule[i - 7] +
                    (vqcc_sha256_rotate(early, 7) ^ vqcc_sha256_rotate(early, 18) ^ early >> 3) +
                    (vqcc_sha256_rotate(late, 17) ^ vqcc_sha256_rotate(late, 19) ^ late >> 10);
    }
    const uint32_t one = s[7] + constants[i] + schedule[i] + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                         (vqcc_sha256_rotate(s[4], 6) ^ vqcc_sha256_rotate(s[4], 11) ^ vqcc_sha256_rotate(s[4], 25));
    const uint32_t two = ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])) +
                         (vqcc_sha256_rotate(s[0], 2) ^ vqcc_sha256_rotate(s[0], 13) ^ vqcc_sha256_rotate(s[0], 22));
    for (int j = 7; j > 0; --j) s[j] = s[j - 1];
    s[4] += one;
    s[0] = one + two;
  }
  for (int i = 0; i < 8; ++i) hash->state[i] += s[i];
}

static inline void vqcc_sha256_add(vqcc_sha256* hash, uint32_t byte) {
  uint32_t* word = &hash->block[hash->bytes % 64 / 4];
  *word = *word << 8 | byte;
  if (++hash->bytes % 64 == 0) vqcc_sha256_mix(hash);
}

/* The first 12 hexadecimal digits, and a 0. */
static inline void vqcc_sha256_finish(vqcc_sha256* hash, char digits[13]) {
  const uint64_t bits = hash->bytes * 8;
  vqcc_sha256_add(hash, 0x80);
  while (hash->bytes % 64 != 56) vqcc_sha256_add(hash, 0);
  for (int shift = 56; shift >= 0; shift -= 8) vqcc_sha256_add(hash, (uint32_t)(bits >> shift & 0xff));
  for (int i = 0; i < 12; ++i) digits[i] = "0123456789abcdef"[hash->state[i / 8] >> (28 - i % 8 * 4) & 0xf];
  digits[12] = '\0';
}

#endif /* VQCC_SHA256_H_ */
