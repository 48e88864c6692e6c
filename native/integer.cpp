// The phased schedule in small numbers: a layer's window is a convolution of counts of one byte with weights of one
// byte, summed in 32 bits, and its neurons fire behind it while the sums are still in the registers.
//
// Weights of more bits come as digits to the base of 128, the first digit first: sums are multiplied by 128 between
// two. A window's row is one run of bytes, as the channels of a pixel's neighbours follow its own.
#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

constexpr int parts = integer_block / lanes;

#if defined(SPIKINGIR_AVX512)
constexpr int most_blocks = 2;
constexpr int most = 12, middle = 8, least = 4;  // pixels of a tile
#elif defined(SPIKINGIR_VNNI)
constexpr int most_blocks = 1;
constexpr int most = 6, middle = 4, least = 2;
#elif defined(__AVX2__)
constexpr int most_blocks = 1;
constexpr int most = 4, middle = 4, least = 2;
#else
constexpr int most_blocks = 1;
constexpr int most = 2, middle = 2, least = 1;
#endif
static_assert(most <= most_tile);

template <int pixels, int blocks>
struct Sums {
  Ints value[pixels][blocks * parts];
};

inline Ints four_bytes(const void* from) {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return Ints{} + bytes;
}

// Adds the products of `words` words of a window's row, of which each pixel of the tile has its own.
template <Ints (*dot)(Ints, Ints, Ints), int pixels, int blocks>
[[gnu::always_inline]] inline void add_run(Sums<pixels, blocks>& sums, const char* from, std::ptrdiff_t pixel,
                                           int words, const char* weights, std::ptrdiff_t block) {
  for (int q = 0; q < words; ++q, from += 4, weights += vector_bytes * parts) {
    Ints weight[blocks * parts];
#pragma GCC unroll 8
    for (int i = 0; i < blocks * parts; ++i)
      weight[i] = load<Ints>(weights + i / parts * block + i % parts * vector_bytes);
#pragma GCC unroll 16
    for (int p = 0; p < pixels; ++p) {
      const Ints counts = four_bytes(from + p * pixel);
#pragma GCC unroll 8
      for (int i = 0; i < blocks * parts; ++i) sums.value[p][i] = dot(sums.value[p][i], counts, weight[i]);
    }
  }
}

#if defined(__AVX2__) && !defined(SPIKINGIR_VNNI)
// Without an instruction for it, products are summed in 16 bits for as long as these weights cannot leave them.
template <int pixels, int blocks>
[[gnu::noinline]] void add_source(Sums<pixels, blocks>& sums, const IntegerSource& source, int y, int x,
                                  const int8_t* weights, std::ptrdiff_t) {
  static_assert(blocks == 1 && parts == 2);
  const std::ptrdiff_t pixel = source.view.pixel * source.stride;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[pixels][parts]{};
  int left = source.group;
  for (int dy = 0; dy < source.kernel; ++dy) {
    const uint8_t* from = source.view.at(y * source.stride + dy, x * source.stride);
    for (int words = source.words; words > 0;) {
      const int count = words < left ? words : left;
      words -= count;
      left -= count;
      for (const uint8_t* end = from + 4 * count; from != end; from += 4, weights += vector_bytes * parts) {
        const __m256i first = _mm256_load_si256((const __m256i*)weights);
        const __m256i second = _mm256_load_si256((const __m256i*)(weights + vector_bytes));
#pragma GCC unroll 8
        for (int p = 0; p < pixels; ++p) {
          const __m256i counts = (__m256i)four_bytes(from + p * pixel);
          sum[p][0] = _mm256_add_epi16(sum[p][0], _mm256_maddubs_epi16(counts, first));
          sum[p][1] = _mm256_add_epi16(sum[p][1], _mm256_maddubs_epi16(counts, second));
        }
      }
      if (left > 0) continue;
      left = source.group;
#pragma GCC unroll 8
      for (int p = 0; p < pixels; ++p)
#pragma GCC unroll 2
        for (int i = 0; i < parts; ++i) {
          sums.value[p][i] += (Ints)_mm256_madd_epi16(sum[p][i], ones);
          sum[p][i] = _mm256_setzero_si256();
        }
    }
  }
  if (left == source.group) return;
#pragma GCC unroll 8
  for (int p = 0; p < pixels; ++p)
#pragma GCC unroll 2
    for (int i = 0; i < parts; ++i) sums.value[p][i] += (Ints)_mm256_madd_epi16(sum[p][i], ones);
}
#else
template <int pixels, int blocks>
[[gnu::always_inline]] inline void add_source(Sums<pixels, blocks>& sums, const IntegerSource& source, int y, int x,
                                              const int8_t* weights, std::ptrdiff_t block) {
  for (int dy = 0; dy < source.kernel; ++dy, weights += std::ptrdiff_t(4) * integer_block * source.words) {
    const uint8_t* from = source.view.at(y * source.stride + dy, x * source.stride);
    add_run<dot_quads>(sums, (const char*)from, source.view.pixel * source.stride, source.words, (const char*)weights,
                       block);
  }
}
#endif

template <int pixels, int blocks>
[[gnu::always_inline]] inline void convolve(const IntegerLayer& layer, int y, int x, int block,
                                            Sums<pixels, blocks>& sums) {
  const int8_t* weights = layer.weights + block * layer.block;
  for (int digit = 0; digit < layer.digits; ++digit) {
    if (digit > 0)
      for (int p = 0; p < pixels; ++p)
        for (int i = 0; i < blocks * parts; ++i) sums.value[p][i] *= 128;
    for (int s = 0; s < layer.sources; ++s) {
      add_source(sums, layer.source[s], y, x, weights, layer.block);
      weights += std::ptrdiff_t(4) * integer_block * layer.source[s].words * layer.source[s].kernel;
    }
  }
}

// By itself, as a compiler that sees it together with others keeps its sums in memory.
template <int pixels, int blocks>
[[gnu::noinline]] Sums<pixels, blocks> convolve_image(const ImageSource& image, const int16_t* weights, int y, int x,
                                                      int block) {
  Sums<pixels, blocks> sums{};
  const char* from_weights = (const char*)(weights + block * image.block);
  for (int dy = 0; dy < image.kernel; ++dy, from_weights += std::ptrdiff_t(4) * integer_block * image.words) {
    const int16_t* from = image.view.at(y * image.stride + dy, x * image.stride);
    add_run<dot_image>(sums, (const char*)from, 2 * image.view.pixel * image.stride, image.words, from_weights,
                       2 * image.block);
  }
  return sums;
}

// The image's current in units of 2^-bits, rounded half to even once; from below, as 2^bits whole + part.
[[gnu::always_inline]] inline Ints rounded(Ints whole, Ints part, int bits) {
  const int mask = (1 << bits) - 1, half = 1 << bits >> 1;
  const Ints down = whole + (part >> bits);
  return down + (((part & mask) + (half - 1) + (down & 1)) >> bits);
}

// Adds the image's current of all the window's steps.
template <int pixels, int blocks>
[[gnu::noinline]] void add_image(const IntegerLayer& layer, int y, int x, int block, Sums<pixels, blocks>& sums) {
  const ImageSource& image = layer.image;
  Sums<pixels, blocks> part = convolve_image<pixels, blocks>(image, image.low, y, x, block), high;
  if (image.high) high = convolve_image<pixels, blocks>(image, image.high, y, x, block);
  const int bits = image.bits - image_digit, mask = (1 << bits) - 1, steps = layer.steps;
  for (int i = 0; i < blocks * parts; ++i) {
    const Ints bias = load<Ints>(image.bias + block * integer_block + i * lanes);
    for (int p = 0; p < pixels; ++p) {
      Ints whole = bias;
      if (image.high) {
        whole += high.value[p][i] >> bits;
        part.value[p][i] += (high.value[p][i] & mask) << image_digit;
      }
      sums.value[p][i] += rounded(whole, part.value[p][i], image.bits) * steps;
    }
  }
}

// The membranes of one vector of neurons of a pixel of sums, but for skips and image, with half of a threshold added.
[[gnu::always_inline]] inline Ints membranes(const IntegerLayer& layer, Ints sum, int y, int x, int channel) {
  sum += load<Ints>(layer.bias + channel);
  if (layer.current.first) sum += load<Ints>(layer.current.at(y, x) + channel) * layer.steps;
  return sum;
}

// 16 channels of a block lie side by side in one pixel of the layer.
template <int pixels, int blocks>
[[gnu::always_inline]] inline void fire(const IntegerLayer& layer, int y, int x, int block,
                                        Sums<pixels, blocks>& sums) {
  // what is written might be the layer for all that is known: it is read once, before
  const int count = layer.width - x < pixels ? layer.width - x : pixels, factor = layer.factor, steps = layer.steps;
  for (int b = 0; b < blocks; ++b) {
    const int phase = (block + b) / layer.blocks_per_phase, channel = (block + b) * integer_block;
    const int first = (block + b) % layer.blocks_per_phase * integer_block;
    const int row = y * factor + phase / factor, column = x * factor + phase % factor;
    for (int s = 0; s < layer.skips; ++s) {
      const Skip& skip = layer.skip[s];
      for (int i = 0; i < parts; ++i) {
        const Ints scale = load<Ints>(skip.scale + first + i * lanes);
        const uint8_t* from = skip.view.at(row, column) + first + i * lanes;
        for (int p = 0; p < count; ++p, from += skip.view.pixel * factor)
          sums.value[p][b * parts + i] += load_bytes(from) * scale;
      }
    }
    Ints exponent[parts];
    for (int i = 0; i < parts; ++i) {
      exponent[i] = load<Ints>(layer.exponent + channel + i * lanes);
      for (int p = 0; p < count; ++p)
        sums.value[p][b * parts + i] = membranes(layer, sums.value[p][b * parts + i], y, x + p, channel + i * lanes);
    }
    uint8_t* levels = layer.levels.at(row, column) + first;
    const std::ptrdiff_t pixel = layer.levels.pixel * factor;
    int32_t* residual = layer.residual.first ? layer.residual.at(row, column) + first : nullptr;
    const std::ptrdiff_t residual_pixel = layer.residual.pixel * factor;
    for (int p = 0; p < count; ++p, levels += pixel, residual += residual_pixel) {
      const Ints* v = sums.value[p] + b * parts;
      Ints n[parts];
      for (int i = 0; i < parts; ++i) n[i] = v[i] >> exponent[i];
      store_bytes(levels, n, steps);
      if (!residual) continue;
      for (int i = 0; i < parts; ++i) {
        const Ints one = Ints{} + 1, before = v[i] - ((one << exponent[i]) >> 1);
        store(residual + i * lanes, before - (load_bytes(levels + i * lanes) << exponent[i]));
      }
    }
  }
}

// Where in the layer the lanes of a block belong: phases of few channels, of one pixel of sums.
struct Places {
  int count;
  struct {
    int row, column, channel;
  } of[integer_block];

  [[gnu::always_inline]] Places(const IntegerLayer& layer, int y, int x, int block) {
    const int left = layer.outputs - block * integer_block;
    int phase = block * integer_block / layer.channels, channel = block * integer_block % layer.channels;
    count = left < integer_block ? left : integer_block;
    for (int i = 0; i < count; ++i) {
      of[i] = {y * layer.factor + phase / layer.factor, x * layer.factor + phase % layer.factor, channel};
      if (++channel == layer.channels) {
        channel = 0;
        ++phase;
      }
    }
  }
};

// Channels of a block that belong to different pixels, or that fire -1: stored one by one.
template <int pixels, int blocks>
void fire_each(const IntegerLayer& layer, int y, int x, int block, const Sums<pixels, blocks>& sums) {
  for (int b = 0; b < blocks; ++b) {
    const Places places(layer, y, x, block + b);
    for (int p = 0; p < pixels && x + p < layer.width; ++p) {
      int32_t value[integer_block], count[integer_block];
      const int first = (block + b) * integer_block, along = p * layer.factor;
      for (int i = 0; i < parts; ++i)
        store(value + i * lanes, membranes(layer, sums.value[p][b * parts + i], y, x + p, first + i * lanes));
      for (int s = 0; s < layer.skips; ++s)
        for (int lane = 0; lane < places.count; ++lane) {
          const auto [row, column, channel] = places.of[lane];
          value[lane] += layer.skip[s].view.at(row, column + along)[channel] * layer.skip[s].scale[channel];
        }
      for (int i = 0; i < parts; ++i) {
        const Ints v = load<Ints>(value + i * lanes), exponent = load<Ints>(layer.exponent + first + i * lanes);
        const Ints one = Ints{} + 1, least = Ints{} - (layer.has_sign ? layer.steps : 0), most = Ints{} + layer.steps;
        Ints n = v >> exponent;
        n = n < least ? least : n;
        n = n > most ? most : n;
        store(count + i * lanes, n);
        store(value + i * lanes, v - ((one << exponent) >> 1) - (n << exponent));
      }
      for (int lane = 0; lane < places.count; ++lane) {
        const auto [row, column, channel] = places.of[lane];
        if (layer.counts.first)
          layer.counts.at(row, column + along)[channel] = static_cast<int16_t>(count[lane]);
        else
          layer.levels.at(row, column + along)[channel] = static_cast<uint8_t>(count[lane]);
        if (layer.residual.first) layer.residual.at(row, column + along)[channel] = value[lane];
      }
    }
  }
}

template <int pixels, int blocks>
void run_tile(const IntegerLayer& layer, int y, int x, int block) {
  Sums<pixels, blocks> sums{};
  convolve(layer, y, x, block, sums);
  if (layer.unit)
    for (int i = 0; i < blocks * parts; ++i) {
      const Ints unit = load<Ints>(layer.unit + block * integer_block + i * lanes);
      for (int p = 0; p < pixels; ++p) sums.value[p][i] *= unit;
    }
  if (layer.image.low) add_image(layer, y, x, block, sums);
  if (layer.scattered)
    fire_each(layer, y, x, block, sums);
  else
    fire(layer, y, x, block, sums);
}

template <int blocks>
void run_row(const IntegerLayer& layer, int y, int block) {
  int x = 0;
  for (; layer.width - x > middle; x += most) run_tile<most, blocks>(layer, y, x, block);
  if (layer.width - x > least)
    run_tile<middle, blocks>(layer, y, x, block);
  else if (layer.width > x)
    run_tile<least, blocks>(layer, y, x, block);
}

}  // namespace

void integer_row(const IntegerLayer& layer, int y, int block, int end) {
  for (; block + most_blocks <= end; block += most_blocks) run_row<most_blocks>(layer, y, block);
  for (; block < end; ++block) run_row<1>(layer, y, block);
}

}  // namespace spikingir::SPIKINGIR_PATH
