// Reacts to a newly met server: logs a promotion, and raises an alarm if the history of the keys
// differs.
#pragma once

#include "loader/postgres/connection.h"
#include "loader/postgres/followed_database.h"

namespace latchkey {

// `rows` answer identity_sql(). If the server's history is not the one followed so far, all known
// keys are invalid: no answer is given, not even a stale one, until every table is loaded anew.
void take_identity(FollowedDatabase& database, const PgRows& rows);

}  // namespace latchkey
