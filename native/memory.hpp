// Memory for vectors, and pictures inside a border of zeros.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#include "kernels.hpp"

namespace spikingir {

// Elements that start where a vector may: one that lies across two lines of the cache costs twice.
template <class Element>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size)
      : elements(static_cast<Element*>(::operator new(size * sizeof(Element), alignment))) {}
  Buffer(std::size_t size, Element value) : Buffer(size) { std::fill_n(elements.get(), size, value); }

  Element* data() { return elements.get(); }
  const Element* data() const { return elements.get(); }
  Element& operator[](std::size_t i) { return elements.get()[i]; }
  const Element& operator[](std::size_t i) const { return elements.get()[i]; }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Delete {
    void operator()(Element* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<Element, Delete> elements;
};

// A picture of `depth` elements a pixel. Its border is zero, so that windows may reach beyond its edges, and so is what
// a vector may read behind its end; its inside is for a layer to write.
template <class Element>
class Picture {
 public:
  // `behind`: elements that may be read behind the end.
  Picture(int height, int width, int depth, int border, int behind = most_lanes)
      : height(height),
        width(width),
        depth(depth),
        border(border),
        row(std::ptrdiff_t(width + 2 * border + slack) * depth),
        elements((height + 2 * border) * row + behind) {
    Element* end = elements.data();
    for (int y = -border; y < height + border; ++y, end += row) {
      const bool inside = y >= 0 && y < height;
      std::fill_n(end, inside ? std::ptrdiff_t(border) * depth : row, Element{});
      if (inside) std::fill(at(y, width), end + row, Element{});
    }
    std::fill_n(end, behind, Element{});
  }

  Element* at(int y, int x) { return elements.data() + (y + border) * row + std::ptrdiff_t(x + border) * depth; }
  const Element* at(int y, int x) const { return const_cast<Picture*>(this)->at(y, x); }
  View<Element> view() { return {at(0, 0), row, depth}; }
  View<const Element> view(int y, int x) const { return {at(y, x), row, depth}; }

  const int height, width, depth, border;

 private:
  const std::ptrdiff_t row;
  Buffer<Element> elements;
};

}  // namespace spikingir
