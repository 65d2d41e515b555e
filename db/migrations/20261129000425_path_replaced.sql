-- migrate:up

-- What an executor last saw at the workspace's path instead of the link to the live tree; null if the link was there.
ALTER TABLE wvs.lanes ADD COLUMN path_replaced_by text;

-- migrate:down

ALTER TABLE wvs.lanes DROP COLUMN path_replaced_by;
