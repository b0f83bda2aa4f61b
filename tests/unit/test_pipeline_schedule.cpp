// SPDX-License-Identifier: Apache-2.0
#include "app/pipeline_schedule.hpp"
#include "core/require.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

namespace qnext {

void PrintTo(const Pipeline& p, std::ostream* out) {
  *out << p.stages << " stages, " << p.chunks << " chunks, " << p.microbatches << " microbatches";
}

namespace {

using Actions = std::vector<std::vector<PipelineAction>>;

Actions schedules(const Pipeline& pipeline) {
  Actions all;
  for (int stage = 0; stage < pipeline.stages; ++stage) {
    all.push_back(pipeline_schedule(pipeline, stage));
  }
  return all;
}

/// Lets all stages run at once as the program does, with messages at their tightest: a message is
/// sent when its receiver takes it, messages of one direction between two ranks are taken in the
/// order in which they were sent, an output lies in its slot until it is taken, and a stage has
/// room for one gradient that is not taken. A chunk takes 1 forward, 2 backward.
class Simulation {
 public:
  Simulation(const Pipeline& pipeline, const Actions& actions)
      : pipeline_(pipeline), actions_(actions), next_(pipeline.stages, 0), time_(pipeline.stages) {
    for (const auto& list : actions) {
      slots_.push_back(most_in_flight(list, pipeline.chunks));
    }
  }

  /// Evaluation keeps nothing: the next microbatch takes the place of the one before.
  Simulation& with_one_slot() {
    for (auto& slots : slots_) {
      slots.assign(slots.size(), 1);
    }
    return *this;
  }

  /// The time of the last action, or nothing where the stages wait for each other.
  std::optional<double> run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int stage = 0; stage < pipeline_.stages; ++stage) {
        while (next_[stage] < actions_[stage].size() && advance(stage)) {
          moved = true;
        }
      }
    }
    for (int stage = 0; stage < pipeline_.stages; ++stage) {
      if (next_[stage] < actions_[stage].size()) {
        return std::nullopt;
      }
    }
    return *std::max_element(time_.begin(), time_.end());
  }

 private:
  struct Message {
    int piece, microbatch;
    double sent;
    bool taken;
  };
  using Line = std::tuple<bool, int, int>;  // direction, from, to

  // The oldest message on the line that is not taken has to be the one that is wanted.
  bool take(bool forward, int from, int to, int piece, int microbatch, double& time) {
    for (Message& message : lines_[{forward, from, to}]) {
      if (!message.taken) {
        EXPECT_EQ(message.piece, piece) << "another message is first";
        EXPECT_EQ(message.microbatch, microbatch) << "another message is first";
        message.taken = true;
        time = std::max(time, message.sent);
        return true;
      }
    }
    return false;
  }
  bool is_taken(bool forward, int from, int to, int piece, int microbatch) {
    for (const Message& message : lines_[{forward, from, to}]) {
      if (message.piece == piece && message.microbatch == microbatch) {
        return message.taken;
      }
    }
    return true;
  }

  bool advance(int stage) {
    const PipelineAction& action = actions_[stage][next_[stage]];
    const int P = pipeline_.stages, m = action.microbatch;
    const int piece = action.chunk * P + stage, last = P * pipeline_.chunks - 1;
    const int before = (stage + P - 1) % P, behind = (stage + 1) % P;
    double time = time_[stage];
    if (action.forward) {
      const int earlier = m - slots_[stage][action.chunk];
      if (piece < last && !is_taken(true, stage, behind, piece, earlier)) {
        return false;
      }
      if (piece > 0 && !take(true, before, stage, piece - 1, m, time)) {
        return false;
      }
    } else {
      // The gradient comes; the one before has to be gone when this one is sent.
      auto& came = came_[stage];
      if (!came && piece < last && !take(false, behind, stage, piece + 1, m, time)) {
        return false;
      }
      came = std::max(time, came.value_or(time));
      const auto& sent = sent_[stage];
      if (sent && !is_taken(false, stage, before, sent->first, sent->second)) {
        return false;
      }
      time = *came;
      came.reset();
    }
    time += action.forward ? 1.0 : 2.0;
    time_[stage] = time;
    if (action.forward && piece < last) {
      lines_[{true, stage, behind}].push_back({piece, m, time, false});
    } else if (!action.forward && piece > 0) {
      lines_[{false, stage, before}].push_back({piece, m, time, false});
      sent_[stage] = {piece, m};
    }
    ++next_[stage];
    return true;
  }

  Pipeline pipeline_;
  const Actions& actions_;
  std::vector<std::size_t> next_;
  std::vector<double> time_;
  std::vector<std::vector<int>> slots_;
  std::map<Line, std::vector<Message>> lines_;
  std::map<int, std::optional<double>> came_;               // the gradient that a stage has taken
  std::map<int, std::optional<std::pair<int, int>>> sent_;  // the last one that it has sent
};

std::vector<Pipeline> sizes() {
  std::vector<Pipeline> all;
  for (int stages = 1; stages <= 6; ++stages) {
    for (int chunks = 1; chunks <= (stages == 1 ? 1 : 4); ++chunks) {
      for (int microbatches = chunks == 1 ? 1 : stages; microbatches <= 17; ++microbatches) {
        all.push_back({stages, chunks, microbatches});
      }
    }
  }
  return all;
}

TEST(PipelineSchedule, OfOneStageTakesOneMicrobatchAfterTheOther) {
  const std::vector<PipelineAction> wanted{
      {true, 0, 0}, {false, 0, 0}, {true, 0, 1}, {false, 0, 1}};
  EXPECT_EQ(pipeline_schedule({1, 1, 2}, 0), wanted);
}

TEST(PipelineSchedule, PassesEachMicrobatchOnceAndChunksInOrder) {
  for (const Pipeline& p : sizes()) {
    SCOPED_TRACE(testing::PrintToString(p));
    for (const auto& actions : schedules(p)) {
      ASSERT_EQ(actions.size(), 2u * p.chunks * p.microbatches);
      std::vector<int> forward(p.chunks, 0), backward(p.chunks, 0);
      for (const PipelineAction& action : actions) {
        int& next = action.forward ? forward[action.chunk] : backward[action.chunk];
        ASSERT_EQ(action.microbatch, next) << "a chunk takes microbatches in their order";
        ++next;
        ASSERT_LE(backward[action.chunk], forward[action.chunk]) << "backward behind forward";
      }
    }
  }
}

// No stage waits for ever, and what it receives is what it wants.
TEST(PipelineSchedule, MessagesArriveInOrderAndNobodyWaitsForEver) {
  for (const Pipeline& p : sizes()) {
    SCOPED_TRACE(testing::PrintToString(p));
    const Actions actions = schedules(p);
    ASSERT_TRUE(Simulation(p, actions).run().has_value());
  }
}

// With S stages, C chunks and M microbatches, a multiple of S, each stage works 3 C M and waits for
// 3 (S - 1): idle / work = (S - 1) / (C M).
TEST(PipelineSchedule, BubbleIsThatOfTheFormula) {
  for (const Pipeline& p : sizes()) {
    if (p.microbatches % p.stages == 0) {
      SCOPED_TRACE(testing::PrintToString(p));
      const Actions actions = schedules(p);
      const double work = 3.0 * p.chunks * p.microbatches;
      const auto time = Simulation(p, actions).run();
      ASSERT_TRUE(time.has_value());
      EXPECT_EQ(*time, work + 3.0 * (p.stages - 1));
      EXPECT_DOUBLE_EQ((*time - work) / work, bubble_share(p));
    }
  }
}

// One chunk: a stage keeps what the stages behind it have not given back. Several: the forward
// passes in front of the first backward pass, and one more.
TEST(PipelineSchedule, KeepsFewMicrobatchesInFlight) {
  for (int stage = 0; stage < 4; ++stage) {
    EXPECT_EQ(most_in_flight(pipeline_schedule({4, 1, 16}, stage), 1), std::vector<int>{4 - stage});
    const auto interleaved = pipeline_schedule({4, 3, 16}, stage);
    int now = 0, most = 0;
    for (const PipelineAction& action : interleaved) {
      now += action.forward ? 1 : -1;
      most = std::max(most, now);
    }
    EXPECT_EQ(most, 2 * (3 - stage) + 2 * 4 + 1);
  }
  EXPECT_EQ(most_in_flight(pipeline_schedule({4, 1, 2}, 0), 1), std::vector<int>{2});
}

TEST(PipelineSchedule, RefusesChunksWithoutMicrobatches) {
  try {
    pipeline_schedule({4, 2, 3}, 0);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("2 chunks on each of 4 stages want as many "
                        "microbatches, not 3"),
              std::string::npos)
        << error.what();
  }
}

TEST(ForwardSchedule, ReachesTheEnd) {
  for (Pipeline p : sizes()) {
    for (p.microbatches = 0; p.microbatches < 9; ++p.microbatches) {
      SCOPED_TRACE(testing::PrintToString(p));
      Actions actions(p.stages, forward_schedule(p));
      for (const auto& list : actions) {
        ASSERT_EQ(list.size(), 1u * p.chunks * p.microbatches);
      }
      ASSERT_TRUE(Simulation(p, actions).with_one_slot().run().has_value());
    }
  }
}

}  // namespace
}  // namespace qnext
