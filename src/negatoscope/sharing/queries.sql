-- add_establishment --
INSERT INTO establishment (code, name, authority_oid, finess) VALUES (%(code)s, %(name)s, %(authority_oid)s, %(finess)s)
RETURNING establishment_id

-- establishments --
SELECT establishment_id, code, name, authority_oid, finess FROM establishment ORDER BY code

-- establishment_by_code --
SELECT establishment_id, code, name, authority_oid, finess FROM establishment WHERE code = %(code)s

-- add_actor --
INSERT INTO actor (kind, name, role, establishment_id, rights, reads_images)
VALUES (%(kind)s, %(name)s, %(role)s, %(establishment_id)s, %(rights)s, %(reads_images)s)
RETURNING actor_id

-- system_actor --
SELECT actor_id FROM actor
WHERE kind = 'system' AND name = %(name)s AND establishment_id = %(establishment_id)s

-- lock_name --
SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))

-- add_user_account --
INSERT INTO user_account (actor_id, display_name, password_hash, demonstration, language)
VALUES (%(actor_id)s, %(display_name)s, %(password_hash)s, %(demonstration)s, %(language)s)

-- user_by_login --
SELECT actor.actor_id, actor.kind, actor.name, actor.role, actor.rights, actor.disabled_at IS NOT NULL AS disabled,
       establishment.establishment_id, establishment.code, establishment.name AS establishment_name,
       establishment.authority_oid,
       user_account.display_name, user_account.password_hash, user_account.demonstration, user_account.language
FROM actor JOIN user_account USING (actor_id) JOIN establishment USING (establishment_id)
WHERE actor.kind = 'user' AND actor.name = %(login)s

-- users --
SELECT actor.actor_id, actor.name, actor.role, actor.disabled_at IS NOT NULL AS disabled,
       establishment.establishment_id, establishment.code, establishment.name AS establishment_name,
       user_account.display_name, user_account.password_hash IS NOT NULL AS has_password,
       user_account.demonstration, user_account.language
FROM actor JOIN user_account USING (actor_id) JOIN establishment USING (establishment_id)
WHERE actor.kind = 'user'
  AND (%(establishment_id)s::int IS NULL OR actor.establishment_id = %(establishment_id)s)
ORDER BY establishment.code, actor.name

-- set_password --
UPDATE user_account SET password_hash = %(password_hash)s WHERE actor_id = %(actor_id)s

-- set_language --
UPDATE user_account SET language = %(language)s WHERE actor_id = %(actor_id)s

-- language --
SELECT language FROM user_account WHERE actor_id = %(actor_id)s

-- set_disabled --
UPDATE actor SET disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, now()) END WHERE actor_id = %(actor_id)s

-- add_entity --
INSERT INTO application_entity (actor_id, title, host, port, tls)
VALUES (%(actor_id)s, %(title)s, %(host)s, %(port)s, %(tls)s)

-- bind_certificate --
INSERT INTO ae_certificate (actor_id, fingerprint) VALUES (%(actor_id)s, %(fingerprint)s)
ON CONFLICT DO NOTHING

-- unbind_certificate --
DELETE FROM ae_certificate WHERE actor_id = %(actor_id)s AND fingerprint = %(fingerprint)s
RETURNING fingerprint

-- entities --
SELECT actor.actor_id, application_entity.title, application_entity.host, application_entity.port, application_entity.tls,
       ARRAY(SELECT fingerprint FROM ae_certificate AS bound WHERE bound.actor_id = actor.actor_id ORDER BY bound_at)
           AS certificates,
       actor.rights, actor.disabled_at IS NOT NULL AS disabled, application_entity.last_seen_at,
       establishment.establishment_id, establishment.code, establishment.name AS establishment_name
FROM application_entity JOIN actor USING (actor_id) JOIN establishment USING (establishment_id)
WHERE (%(establishment_id)s::int IS NULL OR actor.establishment_id = %(establishment_id)s)
ORDER BY establishment.code, application_entity.title, application_entity.host NULLS FIRST

-- entities_by_title --
SELECT actor.actor_id, actor.kind, actor.name, actor.role, actor.rights, actor.disabled_at IS NOT NULL AS disabled,
       establishment.establishment_id, establishment.code, establishment.authority_oid,
       application_entity.title, application_entity.host, application_entity.port, application_entity.tls,
       ARRAY(SELECT fingerprint FROM ae_certificate AS bound WHERE bound.actor_id = actor.actor_id) AS certificates,
       coalesce(application_entity.last_seen_at < now() - interval '1 minute', true) AS stale
FROM application_entity JOIN actor USING (actor_id) JOIN establishment USING (establishment_id)
WHERE application_entity.title = %(title)s

-- entity_by_id --
SELECT actor.actor_id, actor.rights, actor.establishment_id, establishment.code,
       application_entity.title, application_entity.host, application_entity.port, application_entity.tls,
       ARRAY(SELECT fingerprint FROM ae_certificate AS bound WHERE bound.actor_id = actor.actor_id) AS certificates
FROM application_entity JOIN actor USING (actor_id) JOIN establishment USING (establishment_id)
WHERE actor.actor_id = %(actor_id)s

-- entity_seen --
UPDATE application_entity SET last_seen_at = now() WHERE actor_id = %(actor_id)s

-- change_entity --
UPDATE application_entity SET host = %(host)s, port = %(port)s WHERE actor_id = %(actor_id)s

-- set_entity_tls --
UPDATE application_entity SET tls = %(tls)s WHERE actor_id = %(actor_id)s

-- change_entity_rights --
UPDATE actor SET rights = %(rights)s, reads_images = %(reads_images)s WHERE actor_id = %(actor_id)s

-- remove_entity --
DELETE FROM application_entity WHERE actor_id = %(actor_id)s

-- add_credential --
INSERT INTO credential (secret_sha256, kind, actor_id, only_study_uid, expires_at)
VALUES (%(secret_sha256)s, %(kind)s, %(actor_id)s, %(only_study_uid)s, now() + make_interval(secs => %(ttl_s)s))
RETURNING credential_id

-- actor_of_secret --
SELECT actor.actor_id, actor.kind, actor.name, actor.role, actor.rights,
       establishment.establishment_id, establishment.code, establishment.authority_oid,
       credential.credential_id, credential.only_study_uid,
       extract(epoch FROM credential.expires_at - clock_timestamp())::float8 AS left_s
FROM credential JOIN actor USING (actor_id) JOIN establishment USING (establishment_id)
WHERE credential.secret_sha256 = %(secret_sha256)s
  AND credential.revoked_at IS NULL AND credential.expires_at > clock_timestamp() AND actor.disabled_at IS NULL

-- session --
SELECT 1 AS session FROM credential WHERE credential_id = %(credential_id)s::uuid AND kind = 'session'

-- credentials --
SELECT credential_id, kind, only_study_uid, created_at, expires_at
FROM credential
WHERE actor_id = %(actor_id)s AND revoked_at IS NULL AND expires_at > now()
ORDER BY created_at DESC

-- revoke_secret --
UPDATE credential SET revoked_at = now()
WHERE secret_sha256 = %(secret_sha256)s AND revoked_at IS NULL
RETURNING actor_id, only_study_uid, expires_at

-- revoke_credential --
UPDATE credential SET revoked_at = now()
WHERE credential_id = %(credential_id)s AND actor_id = %(actor_id)s AND revoked_at IS NULL
RETURNING credential_id

-- revoke_all --
UPDATE credential SET revoked_at = now() WHERE actor_id = %(actor_id)s AND revoked_at IS NULL

-- replace_session --
INSERT INTO credential (secret_sha256, kind, actor_id, only_study_uid, expires_at)
VALUES (%(secret_sha256)s, 'session', %(actor_id)s, %(only_study_uid)s, %(expires_at)s)

-- forget_credentials --
DELETE FROM credential WHERE coalesce(revoked_at, expires_at) < now() - interval '30 days'

-- attempts --
SELECT count(*) AS count FROM login_attempt
WHERE subject = %(subject)s AND at > now() - make_interval(secs => %(window_s)s)

-- add_attempt --
INSERT INTO login_attempt (subject) VALUES (%(subject)s)

-- clear_attempts --
DELETE FROM login_attempt WHERE subject = %(subject)s

-- clear_one_attempt --
DELETE FROM login_attempt
WHERE ctid = (SELECT ctid FROM login_attempt WHERE subject = %(subject)s ORDER BY at DESC LIMIT 1)

-- forget_attempts --
DELETE FROM login_attempt WHERE at < now() - make_interval(secs => %(window_s)s)

-- is_demonstration --
SELECT value = 'true' AS demonstration FROM installation WHERE key = 'demonstration'

-- mark_demonstration --
INSERT INTO installation (key, value) VALUES ('demonstration', 'true') ON CONFLICT (key) DO NOTHING
