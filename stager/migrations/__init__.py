"""The database's revisions, in order; `database.open_database` brings a database up to the newest."""
