-- migrate:up
create schema if not exists wvs;

-- migrate:down
drop schema wvs;
