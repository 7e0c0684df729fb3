-- Comments that begin with a colon are filled in by the code.

-- entries --
SELECT s.step_id, s.scheduled_step_id, s.modality, s.station_title, s.start_date, s.start_time, s.performing_physician,
       s.description AS step_description, s.status, s.attributes AS step_attributes,
       p.requested_procedure_id, p.study_uid, p.description, p.priority, p.attributes AS procedure_attributes,
       r.accession_number, r.authority_oid, r.patient_identifier, r.patient_name, r.birth_date, r.sex,
       r.attributes AS request_attributes, to_char(r.created_at, 'YYYYMMDD') AS issued_date,
       to_char(r.created_at, 'HH24MISS') AS issued_time
FROM readable_scheduled_step(%(actor_id)s, %(purpose)s) AS s
JOIN requested_procedure AS p ON p.procedure_id = s.procedure_id
JOIN imaging_service_request AS r ON r.request_id = p.request_id
WHERE true /*:conditions*/
ORDER BY s.start_date, s.start_time, s.step_id

-- make_number --
SELECT nextval('order_number') AS number

-- add_request --
INSERT INTO imaging_service_request (establishment_id, accession_number, authority_oid, patient_identifier, patient_name,
    birth_date, sex, attributes, created_by)
VALUES (%(establishment_id)s, %(accession_number)s, %(authority_oid)s, %(patient_identifier)s, %(patient_name)s,
    %(birth_date)s, %(sex)s, %(attributes)s, %(created_by)s)
RETURNING request_id

-- add_procedure --
INSERT INTO requested_procedure (request_id, establishment_id, requested_procedure_id, study_uid, description, priority,
    attributes)
VALUES (%(request_id)s, %(establishment_id)s, %(requested_procedure_id)s, %(study_uid)s, %(description)s, %(priority)s,
    %(attributes)s)
RETURNING procedure_id

-- add_step --
INSERT INTO scheduled_procedure_step (procedure_id, establishment_id, scheduled_step_id, modality, station_title,
    start_date, start_time, performing_physician, description, attributes)
VALUES (%(procedure_id)s, %(establishment_id)s, %(scheduled_step_id)s, %(modality)s, %(station_title)s,
    %(start_date)s, %(start_time)s, %(performing_physician)s, %(description)s, %(attributes)s)

-- orders_of_day --
-- Orders by their first step that fits, with how many series of theirs have come.
SELECT r.request_id, min(s.start_date || s.start_time) AS first_moment
FROM readable_request(%(actor_id)s, %(purpose)s) AS r
JOIN requested_procedure AS p ON p.request_id = r.request_id
JOIN scheduled_procedure_step AS s ON s.procedure_id = p.procedure_id
WHERE s.establishment_id = r.establishment_id /*:conditions*/
GROUP BY r.request_id
/*:having*/
ORDER BY first_moment, r.request_id
LIMIT %(limit)s

-- orders --
SELECT r.request_id, r.accession_number, r.patient_identifier, r.patient_name, r.birth_date, r.sex,
       r.attributes AS request_attributes, r.created_at, r.changed_at,
       p.procedure_id, p.requested_procedure_id, p.study_uid, p.description, p.priority,
       p.attributes AS procedure_attributes,
       s.step_id, s.scheduled_step_id, s.modality, s.station_title, s.start_date, s.start_time, s.performing_physician,
       s.description AS step_description, s.status, s.status_reason, s.status_at, s.attributes AS step_attributes
FROM readable_request(%(actor_id)s, %(purpose)s) AS r
JOIN requested_procedure AS p ON p.request_id = r.request_id
JOIN scheduled_procedure_step AS s ON s.procedure_id = p.procedure_id
WHERE r.request_id = ANY(%(request_ids)s::bigint[])
ORDER BY r.request_id, p.procedure_id, s.start_date, s.start_time, s.step_id

-- images --
-- What has come for these orders, among the studies that the asker may see.
SELECT r.request_id, study.study_uid, study.accession_number, study.number_of_series, study.number_of_instances,
       study.modalities
FROM readable_request(%(actor_id)s, %(purpose)s) AS r
JOIN readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
  ON study.establishment_id = r.establishment_id AND study.accession_number = r.accession_number
WHERE r.request_id = ANY(%(request_ids)s::bigint[])
UNION
SELECT p.request_id, study.study_uid, study.accession_number, study.number_of_series, study.number_of_instances,
       study.modalities
FROM readable_request(%(actor_id)s, %(purpose)s) AS r
JOIN requested_procedure AS p ON p.request_id = r.request_id
JOIN readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
  ON study.establishment_id = p.establishment_id AND study.study_uid = p.study_uid
WHERE r.request_id = ANY(%(request_ids)s::bigint[])

-- steps_to_change --
SELECT s.step_id, s.scheduled_step_id, s.status, p.study_uid, r.patient_identifier, r.authority_oid
FROM readable_request(%(actor_id)s, %(purpose)s) AS r
JOIN requested_procedure AS p ON p.request_id = r.request_id
JOIN scheduled_procedure_step AS s ON s.procedure_id = p.procedure_id
WHERE r.request_id = %(request_id)s
ORDER BY s.step_id
FOR UPDATE OF s

-- set_step_status --
UPDATE scheduled_procedure_step SET status = %(status)s, status_reason = %(reason)s, status_at = now()
WHERE step_id = %(step_id)s

-- touch_request --
UPDATE imaging_service_request SET changed_at = now() WHERE request_id = %(request_id)s

-- performed_of_orders --
SELECT p.request_id, d.performed_id, d.sop_instance_uid, d.status, d.wrong_entry, d.station_title, d.modality,
       d.study_uids, d.start_date, d.start_time, d.attributes
FROM readable_request(%(actor_id)s, %(purpose)s) AS r
JOIN requested_procedure AS p ON p.request_id = r.request_id
JOIN scheduled_procedure_step AS s ON s.procedure_id = p.procedure_id
JOIN performed_of_scheduled AS l ON l.step_id = s.step_id
JOIN performed_procedure_step AS d ON d.performed_id = l.performed_id
WHERE r.request_id = ANY(%(request_ids)s::bigint[])
GROUP BY p.request_id, d.performed_id
ORDER BY d.start_date, d.start_time, d.performed_id

-- add_performed --
INSERT INTO performed_procedure_step (establishment_id, sop_instance_uid, status, station_title, modality, study_uids,
    start_date, start_time, attributes, actor_id)
VALUES (%(establishment_id)s, %(sop_instance_uid)s, %(status)s, %(station_title)s, %(modality)s, %(study_uids)s,
    %(start_date)s, %(start_time)s, %(attributes)s, %(actor_id)s)
ON CONFLICT (establishment_id, sop_instance_uid) DO NOTHING
RETURNING performed_id

-- performed_to_set --
SELECT d.performed_id, d.status, d.study_uids, d.attributes
FROM readable_performed_step(%(actor_id)s, %(purpose)s) AS mine
JOIN performed_procedure_step AS d ON d.performed_id = mine.performed_id  -- a relation made by a function cannot be locked
WHERE mine.sop_instance_uid = %(sop_instance_uid)s
FOR UPDATE OF d

-- performed_by_uid --
SELECT performed_id, sop_instance_uid, attributes, study_uids
FROM readable_performed_step(%(actor_id)s, %(purpose)s)
WHERE sop_instance_uid = %(sop_instance_uid)s

-- set_performed --
UPDATE performed_procedure_step SET status = %(status)s, wrong_entry = %(wrong_entry)s, attributes = %(attributes)s,
    changed_at = now()
WHERE performed_id = %(performed_id)s

-- steps_named --
-- A step is named by its id within the study, or within the order when the modality sends a study of its own. One that
-- sends no id means the only step of the study.
SELECT s.step_id, p.request_id FROM readable_scheduled_step(%(actor_id)s, %(purpose)s) AS mine
JOIN scheduled_procedure_step AS s ON s.step_id = mine.step_id
JOIN requested_procedure AS p ON p.procedure_id = s.procedure_id
JOIN imaging_service_request AS r ON r.request_id = p.request_id
WHERE s.scheduled_step_id = %(scheduled_step_id)s
      AND (p.study_uid = %(study_uid)s OR r.accession_number = %(accession_number)s)
   OR %(scheduled_step_id)s = '' AND p.study_uid = %(study_uid)s
      AND NOT EXISTS (SELECT FROM scheduled_procedure_step AS other
                      WHERE other.procedure_id = s.procedure_id AND other.step_id <> s.step_id)
FOR UPDATE OF s

-- link_performed --
INSERT INTO performed_of_scheduled (performed_id, step_id, establishment_id)
VALUES (%(performed_id)s, %(step_id)s, %(establishment_id)s) ON CONFLICT DO NOTHING

-- steps_of_performed --
SELECT s.step_id, s.status, p.request_id FROM performed_of_scheduled AS l
JOIN scheduled_procedure_step AS s ON s.step_id = l.step_id
JOIN requested_procedure AS p ON p.procedure_id = s.procedure_id
WHERE l.performed_id = %(performed_id)s
ORDER BY s.step_id
FOR UPDATE OF s

-- performed_of_step --
SELECT d.status, d.wrong_entry FROM performed_of_scheduled AS l
JOIN performed_procedure_step AS d ON d.performed_id = l.performed_id
WHERE l.step_id = %(step_id)s

-- performed --
SELECT d.performed_id, d.sop_instance_uid, d.status, d.wrong_entry, d.station_title, d.modality, d.study_uids,
       d.start_date, d.start_time, d.attributes,
       ARRAY(SELECT DISTINCT p.request_id FROM performed_of_scheduled AS l
             JOIN scheduled_procedure_step AS s ON s.step_id = l.step_id
             JOIN requested_procedure AS p ON p.procedure_id = s.procedure_id
             WHERE l.performed_id = d.performed_id ORDER BY p.request_id) AS request_ids
FROM readable_performed_step(%(actor_id)s, %(purpose)s) AS d
WHERE d.start_date >= %(first)s AND d.start_date <= %(last)s
  AND (NOT %(unscheduled)s OR NOT EXISTS (SELECT FROM performed_of_scheduled AS l WHERE l.performed_id = d.performed_id))
  AND (d.start_date, d.start_time, d.performed_id) > (%(after_date)s, %(after_time)s, %(after_id)s)
ORDER BY d.start_date, d.start_time, d.performed_id
LIMIT %(limit)s
