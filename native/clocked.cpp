// The clocked schedule, driven by spikes: for each spike that a neuron sees, one row of weights is added.
//
// The spikes around a pixel become one list of row numbers per step, so that a neuron's loop over its spikes ends
// once a step and not once a tap and word. Weights of 16 bits are added two or four rows at a time.
#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

constexpr int parts = clocked_block / lanes;

// Appends the numbers of all rows that one column of the window adds at one step.
inline uint16_t* list_column(const ClockedLayer& layer, int y, int x, int step, uint16_t* end) {
  int row = 0;
  for (int s = 0; s < layer.sources; ++s) {
    const Source<uint32_t>& source = layer.source[s];
    const int words = (source.channels + clocked_block - 1) / clocked_block;
    for (int dy = 0; dy < layer.kernel; ++dy) {
      const uint32_t* word = source.view.at(y + dy, x) + step * words;
      for (int w = 0; w < words; ++w, row += clocked_block) end = append_bits(end, word[w], row);
    }
  }
  return end;
}

// Lists of all steps of a tile's pixels. Each column is listed once and read by all windows that it lies in.
void list_rows(const ClockedLayer& layer, int y, int x, int count, const Scratch& scratch) {
  const int in_column = layer.rows / layer.kernel, columns = count + layer.kernel - 1;
  const int chunk = layer.chunk > 0 ? layer.chunk : 1;
  const std::ptrdiff_t stride = in_column + 32;
  uint16_t* end = scratch.rows + (tile + layer.kernel - 1) * stride;
  int sizes[tile + 6];
  for (int step = 0; step < steps(layer); ++step) {
    for (int column = 0; column < columns; ++column) {
      uint16_t* first = scratch.rows + column * stride;
      sizes[column] = static_cast<int>(list_column(layer, y, x + column, step, first) - first);
    }
    for (int p = 0; p < count; ++p) {
      uint16_t* first = end;
      for (int dx = 0; dx < layer.kernel; ++dx) {
        const uint16_t* from = scratch.rows + (p + dx) * stride;
        const Numbers base = Numbers{} + static_cast<uint16_t>(dx * in_column);
        for (int i = 0; i < sizes[p + dx]; i += 2 * lanes) store(end + i, load<Numbers>(from + i) + base);
        end += sizes[p + dx];
      }
      const int chunks = static_cast<int>(end - first + chunk - 1) / chunk;
      store(end, Numbers{} + static_cast<uint16_t>(layer.rows));  // without a loop, whose end would be guessed wrong
      end = first + chunks * chunk;
      scratch.lists[p * steps(layer) + step] = {first, chunks};
    }
  }
}

// Half of a chunk's rows are summed in 16 bits, and so is the other half; both are then added in 32 bits at once.
template <int chunk>
inline void add_rows(Ints (&v)[parts], const int16_t* rows, SpikeList spikes) {
  constexpr int half = chunk / 2;
  const Ints ones = Ints{} + 0x10001;
  const uint16_t* list = spikes.rows;
  for (int left = spikes.chunks; left > 0; --left, list += chunk)
    for (int i = 0; i < parts / 2; ++i) {
      const auto row = [&](int j) {
        return load<Shorts>(rows + std::size_t{list[j]} * clocked_block + i * 2 * lanes);
      };
      Shorts a = row(0), b = row(half);
      for (int j = 1; j < half; ++j) {
        a += row(j);
        b += row(half + j);
      }
      v[i] = dot_pairs(v[i], low_pairs(a, b), ones);
      v[i + parts / 2] = dot_pairs(v[i + parts / 2], high_pairs(a, b), ones);
    }
}

template <int>
inline void add_rows(Ints (&v)[parts], const int32_t* rows, SpikeList spikes) {
  for (int n = 0; n < spikes.chunks; ++n)
    for (int i = 0; i < parts; ++i) v[i] += load<Ints>(rows + std::size_t{spikes.rows[n]} * clocked_block + i * lanes);
}

inline void add(Ints (&v)[parts], const Ints (&current)[parts]) {
  for (int i = 0; i < parts; ++i) v[i] += current[i];
}

// One step of 32 neurons: their spikes, and -1's, as words.
inline void fire(const ClockedLayer& layer, Ints (&v)[parts], const int32_t* level, const int32_t* amplitude,
                 uint32_t* word) {
  uint32_t up = 0, down = 0;
  for (int i = 0; i < parts; ++i) {
    const Ints limit = load<Ints>(level + i * lanes), size = load<Ints>(amplitude + i * lanes);
    const Ints above = v[i] >= limit, below = v[i] <= -limit;
    v[i] -= above & size;
    up |= bits(above) << (i * lanes);
    if (layer.has_sign) {
      v[i] += below & size;
      down |= bits(below) << (i * lanes);
    }
  }
  word[0] = up;
  if (layer.has_sign) word[layer.blocks] = down;
}

template <int chunk, class Row>
void fire_pixel(const ClockedLayer& layer, const Row* rows, const Row* extended, int y, int x, int block,
                const SpikeList* lists) {
  const int channel = block * clocked_block, words = layer.blocks * (1 + layer.has_sign);
  Ints v[parts], current[parts];
  for (int i = 0; i < parts; ++i) {
    v[i] = load<Ints>(layer.start + channel + i * lanes);
    current[i] = load<Ints>(layer.current.at(y, x) + channel + i * lanes);
  }
  const auto collect = [&](int step) {
    add_rows<chunk>(v, rows, lists[step]);
    add(v, current);
  };
  for (int step = 0; step < layer.delay; ++step) collect(step);
  uint32_t* word = layer.spikes.at(y, x) + block;
  for (int step = 0; step < layer.time_steps; ++step, word += words) {
    if (step + layer.delay < layer.time_steps) collect(step + layer.delay);
    fire(layer, v, layer.threshold + channel, layer.threshold + channel, word);
  }
  if (layer.has_extended_step) {
    add_rows<chunk>(v, extended, lists[layer.time_steps]);
    fire(layer, v, layer.level + channel, layer.amplitude + channel, word);
  }
  if (layer.residual.first)
    for (int i = 0; i < parts; ++i) store(layer.residual.at(y, x) + channel + i * lanes, v[i]);
}

// All pixels of a tile before the next block: its weights stay in the nearest cache.
template <int chunk, class Row>
void fire_row(const ClockedLayer& layer, const Row* rows, const Row* extended, int y, const Scratch& scratch) {
  const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(layer.rows + 1) * clocked_block;
  for (int x = 0; x < layer.width; x += tile) {
    const int count = layer.width - x < tile ? layer.width - x : tile;
    list_rows(layer, y, x, count, scratch);
    for (int block = 0; block < layer.blocks; ++block)
      for (int p = 0; p < count; ++p)
        fire_pixel<chunk>(layer, rows + block * size, extended + block * size, y, x + p, block,
                          scratch.lists + p * steps(layer));
  }
}

}  // namespace

void clocked_row(const ClockedLayer& layer, int y, const Scratch& scratch) {
  switch (layer.chunk) {
    case 4: return fire_row<4>(layer, layer.narrow, layer.narrow_extended, y, scratch);
    case 2: return fire_row<2>(layer, layer.narrow, layer.narrow_extended, y, scratch);
    default: return fire_row<0>(layer, layer.wide, layer.wide_extended, y, scratch);
  }
}

}  // namespace spikingir::SPIKINGIR_PATH
