/**
 * Tables of `node.db`. It holds small content and where the rest is; nothing in it is believed
 * without proof, and all of it can be made again from files, from upstream, or by forgetting.
 */

/** Blocks up to this size live in the database: a file each would use up the disk's inodes. */
export const SMALL_BYTES_MAX = 32 * 1024

export const PLACE = { absent: 0, hot: 1, warm: 2 } as const
export const HELD = { pinned: 1, mustHave: 2 } as const

export const SCHEMA = `
-- What is known of extents, here or not. The row's number is the tier policy's key.
CREATE TABLE extents (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  cid BLOB NOT NULL,
  size INTEGER NOT NULL,
  place INTEGER NOT NULL,      -- 0 absent, 1 hot, 2 warm
  small INTEGER NOT NULL,      -- 1: its bytes are in small_blocks
  held INTEGER NOT NULL,       -- bits: 1 pinned, 2 must-have
  damaged INTEGER NOT NULL,
  verified INTEGER NOT NULL,   -- seconds since 1970
  why TEXT NOT NULL
);
CREATE UNIQUE INDEX extents_cid ON extents (cid);
CREATE TABLE small_blocks (id INTEGER PRIMARY KEY, cid BLOB NOT NULL, bytes BLOB NOT NULL);
-- Numbers are never given twice: the index of chunks goes by them.
CREATE TABLE nodes (id INTEGER PRIMARY KEY AUTOINCREMENT, cid BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE UNIQUE INDEX nodes_cid ON nodes (cid);
-- Parts of extents that failed their proof. The whole extent: offset 0 and its size.
CREATE TABLE damage (cid BLOB NOT NULL, first INTEGER NOT NULL, size INTEGER NOT NULL, why TEXT NOT NULL,
  PRIMARY KEY (cid, first));
CREATE TABLE events (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, what TEXT NOT NULL, subject TEXT NOT NULL,
  why TEXT NOT NULL);
CREATE TABLE policy_pieces (id INTEGER PRIMARY KEY, piece BLOB NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL)
`
