// What follows from meeting a server: a promotion is logged, another history of the keys is an
// alarm.
#pragma once

#include "loader/postgres/connection.h"
#include "loader/postgres/followed_database.h"

namespace latchkey {

// `rows` answer identity_sql(). Where the server's history is not the one followed so far, nothing
// that is known of keys holds: there is no answer, not even a stale one, until every table is
// loaded anew.
void take_identity(FollowedDatabase& database, const PgRows& rows);

}  // namespace latchkey
