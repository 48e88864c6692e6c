// The clocked schedule, driven by spikes: for each spike that a neuron sees, one row of weights is added.
//
// The spikes of a tile's columns become one list of places of rows per step, column after column. A window's spikes are
// a part of that list, as its columns lie side by side: each spike is listed once and read by all windows around it.
// What differs from window to window is the place of the first row, which is taken off the weights' address.
#include "clocked.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

constexpr int parts = clocked_block / lanes;
constexpr int halves = parts / 2;  // vectors of 16-bit numbers in a row
constexpr int most_group = 4;      // pairs of rows at a time
#if defined(SPIKINGIR_AVX512)
constexpr int most_blocks = 4;
#elif defined(__AVX2__)
constexpr int most_blocks = 2;
#else
constexpr int most_blocks = 1;
#endif

template <class Row>
constexpr int row_shift = sizeof(Row) == 2 ? 6 : 7;  // a row's bytes, as a power of two
static_assert(clocked_block * sizeof(int16_t) == 1 << row_shift<int16_t>);

// The lists of all steps of the first `count` pixels of a tile.
void list_rows(const ClockedLayer& layer, int y, int x, int count, int shift, const Scratch& scratch) {
  uint32_t* end = scratch.rows;
  int* start = scratch.starts;
  for (int s = 0; s < layer.sources; ++s) {
    const TrainSource source = layer.source[s];  // copied, as what is written might be it for all that is known
    const int of_step = words(source.channels), width = columns(source, count);
    const uint32_t* corner = source.view.at(y * source.stride, x * source.stride);
    for (int step = 0; step < steps(layer); ++step, corner += of_step) {
      uint32_t row = static_cast<uint32_t>(source.first) << shift;
      for (int column = 0; column < width; ++column) {
        *start++ = static_cast<int>(end - scratch.rows);
        const uint32_t* pixel = corner + column * source.view.pixel;
        for (int dy = 0; dy < source.kernel; ++dy, pixel += source.view.row) {
          const uint32_t* word = pixel;
          for (int left = source.channels; left > 0; left -= clocked_block, row += clocked_block << shift)
            end = append_bits(end, *word++, left < clocked_block ? left : clocked_block, row, shift);
        }
      }
      *start++ = static_cast<int>(end - scratch.rows);
    }
  }
}

// A list of `count` places of rows, which are counted from `base`. What stands behind it may be written to meanwhile.
struct List {
  uintptr_t base;
  uint32_t* rows;
  int count;
  uint32_t zeros;  // place of the row of zeros
};

template <class Vector>
inline Vector row_part(uintptr_t row, int i) {
  return load<Vector>(reinterpret_cast<const char*>(row) + i * vector_bytes);
}

// Rows are added in two sums of 16 bits, for as long as those hold; both are then added in 32 bits at once. They come
// in groups of pairs: a list is filled up with rows of zeros, so that there is no end to be guessed for what is left
// over, and of few lengths most are guessed right.
template <int group, int blocks>
[[gnu::always_inline]] inline void add_rows(Ints (&sums)[blocks * parts], int16_t, std::ptrdiff_t block,
                                            const List& list, int pairs) {
  static_assert(2 * group <= list_slack);
  const Ints ones = Ints{} + 0x10001;
  uint32_t *behind = list.rows + list.count, kept[2 * group];
  __builtin_memcpy(kept, behind, sizeof kept);
  for (int i = 0; i < 2 * group; ++i) behind[i] = list.zeros;
  const uint32_t* row = list.rows;
  const int most = group < most_group ? 1 : pairs / group;
  for (int left = (list.count + 2 * group - 1) / (2 * group); left > 0; left -= most) {
    Shorts a[blocks * halves]{}, b[blocks * halves]{};
    for (int n = left < most ? left : most; n > 0; --n)
#pragma GCC unroll 4
      for (int pair = 0; pair < group; ++pair, row += 2) {
        const uintptr_t first = list.base + row[0], second = list.base + row[1];
#pragma GCC unroll 8
        for (int i = 0; i < blocks * halves; ++i) {
          a[i] += row_part<Shorts>(first + i / halves * block, i % halves);
          b[i] += row_part<Shorts>(second + i / halves * block, i % halves);
        }
      }
#pragma GCC unroll 8
    for (int i = 0; i < blocks * halves; ++i) {
      Ints& low = sums[i / halves * parts + i % halves];
      Ints& high = sums[i / halves * parts + halves + i % halves];
      low = dot_pairs(low, low_pairs(a[i], b[i]), ones);
      high = dot_pairs(high, high_pairs(a[i], b[i]), ones);
    }
  }
  __builtin_memcpy(behind, kept, sizeof kept);
}

template <int, int blocks>
[[gnu::always_inline]] inline void add_rows(Ints (&sums)[blocks * parts], int32_t, std::ptrdiff_t block,
                                            const List& list, int) {
  for (int n = 0; n < list.count; ++n)
    for (int i = 0; i < blocks * parts; ++i)
      sums[i] += row_part<Ints>(list.base + list.rows[n] + i / parts * block, i % parts);
}

// What the neurons of pixel `p` of a tile see.
template <int group, int blocks, class Row>
struct Reads {
  const ClockedLayer& layer;
  const Scratch& scratch;
  uintptr_t weights, extended;
  const int32_t* unit;
  std::ptrdiff_t block;  // bytes
  int count, p;

  [[gnu::always_inline]] void add(Ints (&v)[blocks * parts], int step) const {
    const uintptr_t first = step < layer.time_steps ? weights : extended;
    const int* starts = scratch.starts;
    Ints sums[blocks * parts];
#pragma GCC unroll 16
    for (int i = 0; i < blocks * parts; ++i) sums[i] = Ints{};
    for (int s = 0; s < layer.sources; ++s) {
      const TrainSource& source = layer.source[s];
      const int all = columns(source, count) + 1, column = p * source.stride;
      const int* start = starts + step * all + column;
      starts += steps(layer) * all;
      const uint32_t before = static_cast<uint32_t>(column * rows_of_column(source)) << row_shift<Row>;
      const uint32_t zeros = (static_cast<uint32_t>(layer.rows) << row_shift<Row>)+before;
      const List list{first - before, scratch.rows + start[0], start[source.kernel] - start[0], zeros};
      add_rows<group, blocks>(sums, Row{}, block, list, layer.pairs);
    }
#pragma GCC unroll 16
    for (int i = 0; i < blocks * parts; ++i) v[i] += sums[i] * load<Ints>(unit + i * lanes);
  }
};

// A tile's pixels, and as many blocks at a time as there are registers for: their weights stay in the nearest cache.
template <int group, int blocks, class Row>
int fire_blocks(const ClockedLayer& layer, const Row* weights, const Row* extended, int y, int x, int count, int block,
                const Scratch& scratch) {
  const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(layer.rows + 1) * clocked_block;
  for (; block + blocks <= layer.blocks; block += blocks)
    for (int p = 0; p < count; ++p)
      fire_pixel<blocks, parts>(
          layer, y, x + p, block,
          Reads<group, blocks, Row>{layer, scratch, reinterpret_cast<uintptr_t>(weights + block * size),
                                    reinterpret_cast<uintptr_t>(extended + block * size),
                                    layer.unit + block * clocked_block, size * std::ptrdiff_t{sizeof(Row)}, count, p});
  return block;
}

template <int group, class Row>
void fire_tile(const ClockedLayer& layer, const Row* weights, const Row* extended, int y, int x,
               const Scratch& scratch) {
  const int count = layer.width - x < tile ? layer.width - x : tile;
  list_rows(layer, y, x, count, row_shift<Row>, scratch);
  int block = 0;
  if constexpr (most_blocks >= 4) block = fire_blocks<group, 4>(layer, weights, extended, y, x, count, block, scratch);
  if constexpr (most_blocks >= 2) block = fire_blocks<group, 2>(layer, weights, extended, y, x, count, block, scratch);
  fire_blocks<group, 1>(layer, weights, extended, y, x, count, block, scratch);
}

}  // namespace

void clocked_tile(const ClockedLayer& layer, int y, int x, const Scratch& scratch) {
  switch (layer.pairs) {
    case 0:
      return fire_tile<0>(layer, layer.wide, layer.wide_extended, y, x, scratch);
    case 1:
      return fire_tile<1>(layer, layer.narrow, layer.narrow_extended, y, x, scratch);
    case 2:
    case 3:
      return fire_tile<2>(layer, layer.narrow, layer.narrow_extended, y, x, scratch);
    default:
      return fire_tile<most_group>(layer, layer.narrow, layer.narrow_extended, y, x, scratch);
  }
}

}  // namespace spikingir::SPIKINGIR_PATH
