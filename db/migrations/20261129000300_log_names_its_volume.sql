-- migrate:up

-- The log names the volume that holds its trees: the volume's id, and the path at which an executor bound it last. Null until
-- the first executor of this release binds a volume that has trees of this log, or any volume while the log has no trees.
-- The release before reads neither column.
ALTER TABLE wvs.log_identity ADD COLUMN volume_id uuid, ADD COLUMN volume_path text;

-- One row while the volume's brake holds: a sweep found so many trees lost or unknown that it marked none of them.
CREATE TABLE wvs.volume_brake (
    only_row boolean NOT NULL DEFAULT true CONSTRAINT volume_brake_pkey PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now(),
    lost integer NOT NULL,
    unknown integer NOT NULL,
    trees bigint NOT NULL,
    CONSTRAINT volume_brake_only_row_check CHECK (only_row)
);

-- A program that does not know snapshot.found.v1 cannot read the log of this release.
CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '20261129000300' $$;

-- migrate:down
CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '20261129000100' $$;

DROP TABLE wvs.volume_brake;
ALTER TABLE wvs.log_identity DROP COLUMN volume_path, DROP COLUMN volume_id;
