// Vectors as wide as the processor that a file is compiled for, and the few operations that C++ has no words for.
//
// Kernels are written once, in the vector extensions of GCC and Clang, and compiled once per path: SPIKINGIR_PATH
// names the namespace, the compiler's flags the instructions. Nothing here or in a kernel may come from the standard
// library's templates: the linker keeps one copy of those for all paths, which may be the one that needs AVX-512.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace spikingir::SPIKINGIR_PATH {

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI2__)
#define SPIKINGIR_AVX512
#define SPIKINGIR_VNNI
inline constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
#if defined(__AVXVNNI__)
#define SPIKINGIR_VNNI
#endif
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

inline constexpr int lanes = vector_bytes / 4;

typedef int32_t Ints __attribute__((vector_size(vector_bytes)));
typedef int16_t Shorts __attribute__((vector_size(vector_bytes)));
typedef double Doubles __attribute__((vector_size(vector_bytes)));
typedef int16_t HalfShorts __attribute__((vector_size(vector_bytes / 2)));
typedef int32_t HalfInts __attribute__((vector_size(vector_bytes / 2)));

// A vector at any address. (memcpy would move it in halves, which a load of the whole then waits for.)
template <class Vector>
struct __attribute__((packed, may_alias)) Anywhere {
  Vector vector;
};

template <class Vector>
static inline Vector load(const void* from) {
  return static_cast<const Anywhere<Vector>*>(from)->vector;
}

template <class Vector>
static inline void store(void* to, Vector vector) {
  static_cast<Anywhere<Vector>*>(to)->vector = vector;
}

// sum + a[0] b[0] + a[1] b[1] in each lane, of the two 16-bit halves of its a and b.
static inline Ints dot_pairs(Ints sum, Ints a, Ints b) {
#if defined(SPIKINGIR_AVX512)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(SPIKINGIR_VNNI)
  return (Ints)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(__AVX2__)
  return sum + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// dot_pairs of two numbers of the image, the same in all lanes, and of weights.
static inline Ints dot_image(Ints sum, Ints image, Ints weights) { return dot_pairs(sum, image, weights); }

// sum + a[0] b[0] + ... + a[3] b[3] in each lane, of the four bytes of its a, counts, and its b, which have signs.
#if defined(SPIKINGIR_VNNI) || !defined(__AVX2__)
static inline Ints dot_quads(Ints sum, Ints a, Ints b) {
#if defined(SPIKINGIR_AVX512)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(SPIKINGIR_VNNI)
  return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#else
  const Ints byte = Ints{} + 255;
  return sum + (a & byte) * ((b << 24) >> 24) + ((a >> 8) & byte) * ((b << 16) >> 24) +
         ((a >> 16) & byte) * ((b << 8) >> 24) + ((a >> 24) & byte) * (b >> 24);
#endif
}
#endif

// As many counts of one byte as a vector has lanes.
static inline Ints load_bytes(const uint8_t* from) {
#if defined(SPIKINGIR_AVX512)
  return (Ints)_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128((const __m128i*)from));
#elif defined(__AVX2__)
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
  return Ints{from[0], from[1], from[2], from[3]};
#endif
}

// 16 counts, clipped to the range from 0 to most, which fits a byte.
static inline void store_bytes(uint8_t* to, const Ints (&counts)[16 / lanes], int most) {
#if defined(SPIKINGIR_AVX512)
  const __m512i positive = _mm512_maskz_max_epi32(0xFFFF, (__m512i)counts[0], _mm512_setzero_si512());
  const __m128i bytes = _mm512_maskz_cvtusepi32_epi8(0xFFFF, positive);
  _mm_storeu_si128((__m128i*)to, _mm_min_epu8(bytes, _mm_set1_epi8(static_cast<char>(most))));
#elif defined(__AVX2__)
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)counts[0], (__m256i)counts[1]), 0xD8);
  // the bytes' instruction takes numbers with a sign, which these are once they are small
  const __m256i small = _mm256_min_epu16(words, _mm256_set1_epi16(static_cast<short>(most)));
  const __m128i low = _mm256_castsi256_si128(small), high = _mm256_extracti128_si256(small, 1);
  _mm_storeu_si128((__m128i*)to, _mm_packus_epi16(low, high));
#else
  for (int i = 0; i < 16; ++i) {
    const int n = counts[i / lanes][i % lanes];
    to[i] = static_cast<uint8_t>(n < 0 ? 0 : n > most ? most : n);
  }
#endif
}

// Pairs of a's and b's numbers, as dot_pairs takes them: of the first and the last four in each eight.
static inline Ints low_pairs(Shorts a, Shorts b) {
#if defined(SPIKINGIR_AVX512)
  return (Ints)_mm512_unpacklo_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Ints)_mm256_unpacklo_epi16((__m256i)a, (__m256i)b);
#else
  return (Ints)__builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#endif
}

static inline Ints high_pairs(Shorts a, Shorts b) {
#if defined(SPIKINGIR_AVX512)
  return (Ints)_mm512_unpackhi_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Ints)_mm256_unpackhi_epi16((__m256i)a, (__m256i)b);
#else
  return (Ints)__builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#endif
}

// One bit per lane of a comparison's result.
static inline uint32_t bits(Ints truth) {
#if defined(SPIKINGIR_AVX512)
  return _mm512_movepi32_mask((__m512i)truth);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)truth));
#else
  uint32_t word = 0;
  for (int i = 0; i < lanes; ++i) word |= static_cast<uint32_t>(truth[i] & 1) << i;
  return word;
#endif
}

#if defined(__AVX2__)
// The places of the bits that are set in a byte, first to last.
struct SetBits {
  uint8_t of_byte[256][8]{};
  constexpr SetBits() {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, count = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of_byte[byte][count++] = static_cast<uint8_t>(bit);
  }
};
static constexpr SetBits set_bits;
#endif

// Appends first + (i << shift) for each set bit i of a word, which has none beyond its first `channels`. May write over
// 16 numbers more, which mean nothing. Takes as long whatever the bits are: a loop over them would end by surprise.
static inline uint32_t* append_bits(uint32_t* end, uint32_t word, [[maybe_unused]] int channels, uint32_t first,
                                    int shift) {
#if defined(SPIKINGIR_AVX512)
  const __m512i count = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int bit = 0; bit < channels; bit += 16, word >>= 16) {
    const __m512i all = _mm512_slli_epi32(_mm512_add_epi32(count, _mm512_set1_epi32(bit)), shift);
    const __mmask16 mask = static_cast<__mmask16>(word);
    _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(all, _mm512_set1_epi32(first))));
    end += __builtin_popcount(mask);
  }
#elif defined(__AVX2__)
  for (int bit = 0; bit < channels; bit += 8, word >>= 8) {
    const __m128i bits = _mm_loadl_epi64((const __m128i*)set_bits.of_byte[word & 255]);
    const __m256i places = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bits), shift);
    const __m256i base = _mm256_set1_epi32(static_cast<int>(first + (static_cast<uint32_t>(bit) << shift)));
    _mm256_storeu_si256((__m256i*)end, _mm256_add_epi32(places, base));
    end += __builtin_popcount(word & 255);
  }
#else
  for (; word != 0; word &= word - 1) *end++ = first + (static_cast<uint32_t>(__builtin_ctz(word)) << shift);
#endif
  return end;
}

// Appends (first + 16 i + d) size, modulo 2^16, for each digit d of four bits in a word, its i-th, that is not 0. May
// write over eight numbers more.
static inline uint16_t* append_digits(uint16_t* end, uint32_t word, int first, int size) {
#if defined(__AVX2__)
  const __m256i each =
      _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  const __m256i digits = _mm256_and_si256(each, _mm256_set1_epi32(15));
  const __m256i is_zero = _mm256_cmpeq_epi32(digits, _mm256_setzero_si256());
  const int some = 255 ^ _mm256_movemask_ps(_mm256_castsi256_ps(is_zero));
  const __m256i base = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112));
  const __m256i from = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)set_bits.of_byte[some]));
  const __m256i places = _mm256_permutevar8x32_epi32(_mm256_add_epi32(digits, base), from);
  const __m128i all = _mm_packus_epi32(_mm256_castsi256_si128(places), _mm256_extracti128_si256(places, 1));
  _mm_storeu_si128((__m128i*)end, _mm_mullo_epi16(all, _mm_set1_epi16(static_cast<short>(size))));
  end += __builtin_popcount(some);
#else
  for (; word != 0; word >>= 4, first += 16) {
    *end = static_cast<uint16_t>((first + static_cast<int>(word & 15)) * size);
    end += (word & 15) != 0;
  }
#endif
  return end;
}

// A word's bits from `first` on as lanes: all ones where the bit is set.
static inline Ints lanes_of(uint32_t word, int first) {
  Ints bit = Ints{} + 1;
  for (int i = 0; i < lanes; ++i) bit[i] = 1 << i;
  return ((Ints{} + static_cast<int32_t>(word >> first)) & bit) != 0;
}

}  // namespace spikingir::SPIKINGIR_PATH
