-- recent --
SELECT series_id FROM closed_instance WHERE establishment_id = %(establishment_id)s AND uid_hash = %(uid_hash)s;

-- blocks --
SELECT entries FROM closed_blocks(%(establishment_id)s, %(uid_hash)s) AS entries;
