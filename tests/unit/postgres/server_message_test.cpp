// The parts of a server's error that may be repeated: never a row, never a terminal's control
// sequence.
#include "loader/postgres/server_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace latchkey {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(ServerMessage, TellsThePrimaryMessageAndTheConstraint) {
  EXPECT_EQ(told({.sqlstate = "23514",
                  .primary = "new row for relation \"k\" violates check constraint \"k_check\"",
                  .constraint = "k_check",
                  .context = "",
                  .function = "ExecConstraints"}),
            "new row for relation \"k\" violates check constraint \"k_check\" (SQLSTATE 23514,"
            " constraint k_check)");
}

TEST(ServerMessage, KeepsBackWhatMayHoldARow) {
  const ServerMessage raised = {.sqlstate = "55P03",
                                .primary = "my key is sk_live_1",
                                .constraint = "",
                                .context = "PL/pgSQL function f() line 3 at RAISE",
                                .function = "exec_stmt_raise"};
  const ServerMessage value = {.sqlstate = "22P02",
                               .primary = "invalid input syntax for type integer: \"sk_live_1\"",
                               .constraint = "",
                               .context = "",
                               .function = "pg_strtoint32"};
  const ServerMessage user = {
      .sqlstate = "P0001", .primary = "sk_live_1", .constraint = "", .context = "", .function = ""};
  const ServerMessage name = {.sqlstate = "42P01",
                              .primary = "relation \"sk_live_1\" does not exist",
                              .constraint = "",
                              .context = "",
                              .function = "RangeVarGetRelidExtended"};
  const ServerMessage constraint = {.sqlstate = "P0001",
                                    .primary = "x",
                                    .constraint = "sk_live_1",
                                    .context = "PL/pgSQL function f() line 3 at RAISE",
                                    .function = "exec_stmt_raise"};
  const ServerMessage forged = {.sqlstate = "23514",
                                .primary = "sk_live_1",
                                .constraint = "sk_live_1",
                                .context = "PL/pgSQL function f() line 3 at RAISE",
                                .function = "exec_stmt_raise"};
  for (const ServerMessage& message : {raised, value, user, name, constraint, forged}) {
    EXPECT_THAT(told(message), AllOf(Not(HasSubstr("sk_live")), HasSubstr("its own log has them"),
                                     HasSubstr(std::string(message.sqlstate))));
  }
}

TEST(ServerMessage, TellsWhyAStatementWasCancelled) {
  EXPECT_EQ(told({.sqlstate = "55P03",
                  .primary = "canceling statement due to lock timeout",
                  .constraint = "",
                  .context = "while updating tuple (0,1) in relation \"k\"",
                  .function = "ProcessInterrupts"}),
            "canceling statement due to lock timeout (SQLSTATE 55P03)");
}

TEST(ServerMessage, IsOnePrintableLineWhateverTheServerSends) {
  const std::string text = told({.sqlstate = "4\x1b",
                                 .primary = "a\n\x1b[2Jb",
                                 .constraint = "c\r",
                                 .context = "",
                                 .function = ""});
  for (const char c : text) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  EXPECT_THAT(told({}), HasSubstr("SQLSTATE unknown"));
}

}  // namespace
}  // namespace latchkey
