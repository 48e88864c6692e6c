// The clocked schedule for few output channels: a vector's lanes are time steps.
//
// Rows of 32 weights would be nearly empty. Instead, a source's words of a pixel, step after step, are compared bit by
// bit: a weight is added at once to all the steps at which its channel fired. Density does not matter.
#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

static_assert(lanes <= most_lanes);

inline Ints count_up() {
  Ints numbers{};
  for (int i = 0; i < lanes; ++i) numbers[i] = i;
  return numbers;
}

// What a pixel's neurons collect at the steps from `first` on. Where the extended step is among them, it has weights
// of its own.
template <int outputs, bool with_extended>
void collect(const ClockedLayer& layer, int y, int x, int first, int32_t (&sums)[outputs][lanes]) {
  const Ints is_extended = (Ints{} + (layer.time_steps - first)) == count_up();
  const int32_t *weight = layer.few, *extended = layer.few_extended;
  Ints sum[outputs]{};
  for (int s = 0; s < layer.sources; ++s) {
    const Source<uint32_t>& source = layer.source[s];
    for (int dy = 0; dy < layer.kernel; ++dy)
      for (int dx = 0; dx < layer.kernel; ++dx) {
        const Ints words = load<Ints>(source.view.at(y + dy, x + dx) + first);
        Ints bit = Ints{} + 1;
        for (int c = 0; c < source.channels; ++c, bit <<= 1, weight += outputs, extended += outputs) {
          const Ints fired = (words & bit) != 0;
          for (int o = 0; o < outputs; ++o) {
            Ints each = Ints{} + weight[o];
            if (with_extended) each = is_extended ? Ints{} + extended[o] : each;
            sum[o] += each & fired;
          }
        }
      }
  }
  for (int o = 0; o < outputs; ++o) store(sums[o], sum[o]);
}

// One step: the neurons' spikes, and -1's, as words.
template <int outputs>
inline void fire(const ClockedLayer& layer, int32_t (&v)[outputs], const int32_t* level, const int32_t* amplitude,
                 uint32_t* word) {
  uint32_t up = 0, down = 0;
  for (int o = 0; o < outputs; ++o) {
    const bool above = v[o] >= level[o], below = layer.has_sign && v[o] <= -level[o];
    v[o] += (below - above) * amplitude[o];
    up |= static_cast<uint32_t>(above) << o;
    down |= static_cast<uint32_t>(below) << o;
  }
  word[0] = up;
  if (layer.has_sign) word[1] = down;
}

template <int outputs>
void fire_pixel(const ClockedLayer& layer, int y, int x) {
  const int32_t* current = layer.current.at(y, x);
  int32_t v[outputs], sums[outputs][lanes];
  for (int o = 0; o < outputs; ++o) v[o] = layer.start[o];
  const auto add = [&](int step) {  // steps come one after the other
    if (step % lanes == 0) {
      if (layer.has_extended_step && step + lanes > layer.time_steps)
        collect<outputs, true>(layer, y, x, step, sums);
      else
        collect<outputs, false>(layer, y, x, step, sums);
    }
    for (int o = 0; o < outputs; ++o) v[o] += sums[o][step % lanes];
  };
  const auto add_with_current = [&](int step) {
    add(step);
    for (int o = 0; o < outputs; ++o) v[o] += current[o];
  };
  for (int step = 0; step < layer.delay; ++step) add_with_current(step);
  uint32_t* word = layer.spikes.at(y, x);
  for (int step = 0; step < layer.time_steps; ++step, word += 1 + layer.has_sign) {
    if (step + layer.delay < layer.time_steps) add_with_current(step + layer.delay);
    fire<outputs>(layer, v, layer.threshold, layer.threshold, word);
  }
  if (layer.has_extended_step) {
    add(layer.time_steps);
    fire<outputs>(layer, v, layer.level, layer.amplitude, word);
  }
  if (layer.residual.first)
    for (int o = 0; o < outputs; ++o) layer.residual.at(y, x)[o] = v[o];
}

template <int outputs>
void fire_row(const ClockedLayer& layer, int y) {
  for (int x = 0; x < layer.width; ++x) fire_pixel<outputs>(layer, y, x);
}

}  // namespace

void clocked_few_row(const ClockedLayer& layer, int y) {
  switch (layer.outputs) {
    case 1: return fire_row<1>(layer, y);
    case 2: return fire_row<2>(layer, y);
    case 3: return fire_row<3>(layer, y);
    default: return fire_row<few_outputs>(layer, y);
  }
}

}  // namespace spikingir::SPIKINGIR_PATH
