"""Copies the answers of Headrace's archive into a table of one's own. Repeated, it adds what is new.

HEADRACE_ARCHIVE_URL=sqlite:///headrace.db; the names of the tables are a stable interface (docs/integration.md).
"""

import sqlite3
import sys

own = sqlite3.connect("shop.db", isolation_level=None)
own.execute("ATTACH ? AS archive", (sys.argv[1] if len(sys.argv) > 1 else "headrace.db",))
own.execute("CREATE TABLE IF NOT EXISTS answers (stream_id TEXT PRIMARY KEY, order_id TEXT, text TEXT, cost REAL)")
own.execute("""
    INSERT OR REPLACE INTO answers
    SELECT stream_id, json_extract(metadata, '$.order'), text, cost_nanos / 1e9
    FROM archive.streams WHERE status = 'completed'""")
for row in own.execute("SELECT * FROM answers"):
    print(*row)
