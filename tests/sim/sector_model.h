// SPDX-License-Identifier: GPL-2.0-or-later
// SectorModel: what each sector of a disk may hold, given all that was written and how it ended.
//
// Every write has a stamp of its own and fills its sectors with it. A sector may hold what it held
// before or what any write in flight or failed would leave: old or new, sector by sector, but never
// bytes of another sector, of another request's range, or of two writes at once. Thread: the
// test's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace skiff::sim {

inline constexpr size_t kSectorBytes = 512;
using Stamp = uint64_t;
inline constexpr Stamp kZeroes = 0;
inline constexpr Stamp kForeign = ~Stamp{0};

// A sector's bytes for `stamp` there, and back: kForeign for anything else.
inline void fill_sector(std::span<std::byte> sector, Stamp stamp, uint64_t number) {
  for (size_t i = 0; i < kSectorBytes; i += 16) {
    const uint64_t words[2] = {stamp, stamp == kZeroes ? 0 : number};
    std::memcpy(sector.data() + i, words, 16);
  }
}
inline Stamp stamp_of(std::span<const std::byte> sector, uint64_t number) {
  Stamp stamp = 0;
  std::memcpy(&stamp, sector.data(), sizeof(stamp));
  std::byte expected[kSectorBytes];
  fill_sector(expected, stamp, number);
  return std::memcmp(expected, sector.data(), kSectorBytes) == 0 ? stamp : kForeign;
}

class SectorModel {
 public:
  explicit SectorModel(uint64_t sectors) : sectors_(sectors) {}

  uint64_t size() const { return sectors_.size(); }
  void resize(uint64_t sectors) { sectors_.resize(sectors); }

  bool is_busy(uint64_t first, uint64_t count) const {
    for (uint64_t i = first; i < first + count; ++i)
      if (sectors_[i].writers > 0 || sectors_[i].readers > 0) return true;
    return false;
  }

  // `stamp` may be there from now on.
  void write_begins(uint64_t first, uint64_t count, Stamp stamp) {
    for (uint64_t i = first; i < first + count; ++i) {
      Sector& sector = sectors_[i];
      if (++sector.writers > 1) sector.contested = true;
      ++sector.writes;
      sector.possible.insert(stamp);
    }
    for (Read& read : reads_)
      for (uint64_t i = first; i < first + count; ++i)
        if (i >= read.first && i < read.first + read.possible.size())
          read.possible[i - read.first].insert(stamp);
  }
  // `certain`: it is there now, if nobody else wrote meanwhile.
  void write_ends(uint64_t first, uint64_t count, Stamp stamp, bool certain) {
    for (uint64_t i = first; i < first + count; ++i) {
      Sector& sector = sectors_[i];
      if (certain && !sector.contested) sector.possible = {stamp};
      if (--sector.writers == 0) sector.contested = false;
    }
  }

  struct Read {
    uint64_t first = 0;
    std::vector<std::set<Stamp>> possible;
    std::vector<uint64_t> writes;  // Begun until then.
  };
  using ReadId = std::list<Read>::iterator;
  ReadId read_begins(uint64_t first, uint64_t count) {
    Read read{first, {}, {}};
    for (uint64_t i = first; i < first + count; ++i) {
      read.possible.push_back(sectors_[i].possible);
      // None that is under way may count as over when the read ends.
      read.writes.push_back(sectors_[i].writers == 0 ? sectors_[i].writes : kForeign);
      ++sectors_[i].readers;
    }
    return reads_.insert(reads_.end(), std::move(read));
  }
  // The first sector that is impossible, or size(). `bytes` empty: the read failed.
  uint64_t read_ends(ReadId id, std::span<const std::byte> bytes) {
    const Read read = std::move(*id);
    reads_.erase(id);
    uint64_t wrong = size();
    for (uint64_t i = 0; i < read.possible.size(); ++i) {
      Sector& sector = sectors_[read.first + i];
      --sector.readers;
      if (bytes.empty()) continue;
      const uint64_t number = read.first + i;
      const Stamp stamp = stamp_of(bytes.subspan(i * kSectorBytes, kSectorBytes), number);
      if (!read.possible[i].contains(stamp) && wrong == size()) wrong = number;
      // What was seen while nobody wrote, from the read's begin to its end, stays.
      if (sector.writes == read.writes[i] && sector.possible.contains(stamp))
        sector.possible = {stamp};
    }
    return wrong;
  }

 private:
  struct Sector {
    std::set<Stamp> possible = {kZeroes};
    uint32_t writers = 0;
    uint32_t readers = 0;
    uint64_t writes = 0;  // Begun so far.
    bool contested = false;
  };
  std::vector<Sector> sectors_;
  std::list<Read> reads_;
};

}  // namespace skiff::sim
