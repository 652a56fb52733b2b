"""Ways into an engine that a reader of its manual would try; every one is refused on both.

``{canary}`` is a file that exists. What is here is refused by the parser in front or by the lack of
such a dataset; no engine is asked.
"""

from __future__ import annotations

from typing import Final

ATTACKS: Final[tuple[str, ...]] = tuple(
    r"""
select * from read_duckdb('{canary}')
select * from read_duckdb('{canary}', table_name => 't')
select * from "read_csv"('{canary}')
select * from main.read_csv('{canary}')
select * from system.main.read_csv('{canary}')
select * from pg_catalog.read_text('{canary}')
select * from query_table(['t'])
select * from query($$select 1$$)
select getvariable($$x$$)
select * from duckdb_functions()
select * from duckdb_extensions()
select * from duckdb_memory()
select * from duckdb_temporary_files()
select * from pragma_storage_info('t')
select * from pragma_table_info('t')
select * from parquet_schema('{canary}')
select * from parquet_file_metadata('{canary}')
select * from parquet_kv_metadata('{canary}')
select * from parquet_bloom_probe('{canary}', 'a', 1)
from '{canary}'
from 'x' select *
select * from U&'\002Fetc\002Fpasswd'
select * from U&"\002Fetc\002Fpasswd"
select * from $$/etc/passwd$$
select * from $a$/etc/passwd$a$
select * from E'/etc/passwd'
select * from e'\x2fetc\x2fpasswd'
select * from "/etc/passwd"
select * from "main"."/etc/passwd"
select * from "/etc/passwd" as t
select * from ["/etc/passwd"]
select * from `/etc/passwd`
select columns(*) from t
select columns('.*') from t
select columns(c -> c like 'i%') from t
select list_transform([1,2], x -> x + 1)
select list_transform([1], lambda x : x)
select array_agg(x -> x) from t
select t.* like 'i%' from t
select current_setting('home_directory')
select current_setting('datafusion.execution.time_zone')
select current_schemas(true)
select current_user
select session_user
select user
select current_role
select current_catalog
select current_schema
select inet_client_addr()
select pg_backend_pid()
select pg_typeof(1)
select typeof(1)
select txid_current()
select pg_ls_dir('/')
select pg_stat_file('/etc/passwd')
select pg_read_binary_file('/etc/passwd')
select dblink('host=x', 'select 1')
select xmlparse(document '<a/>')
select query_to_xml('select 1', true, true, '')
select arrow_typeof(1)
select arrow_cast('{canary}', 'Utf8')
select arrow_cast(1, 'Timestamp(Nanosecond, Some("../../etc"))')
select arrow_metadata(i) from t
select * from information_schema.df_settings
select * from datafusion.information_schema.df_settings
select * from datafusion.public.t
select * from "file:///etc/passwd"
select * from 't.parquet'
select * from "s3://b/x.parquet"
select * from "https://example.com/x.csv"
select * from t_0
select * from "t_0000"
select lh_not_zero(1, 0)
select lh_trunc_day(now())
select * from temp.t
select * from memory.main.t
select * from memory.t
select * from main.t
select * from pg_temp.t
select * from duckdb_views
select * from duckdb_columns()
select * from sqlite_temp_master
select * from pg_class
select * from pg_settings
select * from which_secret('s3://x', 's3')
select * from test_all_types()
select * from unnest(read_text('{canary}'))
select * from unnest(glob('/etc/*'))
select * from generate_series(1, (select count(*) from read_csv('{canary}')))
select * from t join lateral read_csv('{canary}') x on true
select * from t cross join lateral (select * from read_text('{canary}')) x
select * from rows from (read_csv('{canary}'))
select * from xmltable('/x' passing '<x/>' columns a int)
select * from json_table('{{}}', '$' columns (a int path '$.a'))
select json_serialize_sql('select 1')
select * from json_execute_serialized_sql('{{}}')
select * from json_serialize_plan('select 1')
select create_sort_key(i, 'asc') from t
select in_search_path('memory', 'main')
select sha256('x')
select file_name from t
select filename from t
select file_row_number from t
select file_index from t
select rowid from t
select hash(i) from t
select stats(i) from t
select error('x')
select sleep_ms(1000)
select sleep(1)
select vector_type(i) from t
select alias(i) from t
select parse_path('{canary}')
select encode('a') , decode('a')
select from_base64('a')
select write_blob('a', '/tmp/x')
select apply(array[1], 'x')
select row(1, 2)
select struct_pack(a := 1)
select {{'a': 1}}
select map([1], [2])
select cast('1' as json)
select '1'::xml
select '1'::regclass
select 't'::regclass::oid
select cast('x' as "../../etc")
select try_cast('x' as union(a int))
select * from t where i in (select column0 from '{canary}')
select * from (values (1)) v(x), '{canary}'
select * from (table '{canary}')
table '{canary}'
table "{canary}"
values (read_text('{canary}'))
select 1 order by (select content from read_text('{canary}'))
select 1 limit (select count(*) from read_text('{canary}'))
select count(*) filter (where exists (select 1 from '{canary}')) from t
select sum(i) over (order by (select 1 from '{canary}')) from t
with recursive x as (select 1 union all select * from '{canary}') select * from x
with x as materialized (select * from '{canary}') select * from x
select case when true then (select 1 from '{canary}') end
select array(select content from read_text('{canary}'))
select any_value((select 1 from '{canary}'))
select * from t asof join '{canary}' using (i)
select * from t positional join '{canary}'
select * from t semi join '{canary}' using (i)
summarize '{canary}'
describe '{canary}'
show all tables
explain (format json) select 1
explain (analyze) copy t to '/tmp/x'
explain analyze create table x as select 1
explain verbose select 1
explain format tree select 1
set session authorization x
select set_config('memory_limit', '1TB', false)
select 1; select read_text('{canary}')
select 1;;select 2
select 1 settings x = 1
select * from t format json
select 1 into outfile '/tmp/x'
select * into x from t
select * from t for share
select * from t with (nolock)
select * from t using sample 10
select * from t match_recognize (pattern (a) define a as true)
select * from t pivot (count(*) for i in (1))
unpivot t on i
select * from t at (timestamp => now())
select * from t for system_time as of now()
declare c cursor for select 1
fetch all from c
listen x
notify x
do $$ begin end $$
call x()
cluster t
reindex table t
comment on table t is 'x'
create secret (type s3)
drop secret x
create schema x
create sequence s
create type x as enum ('a')
alter database x set y
update extensions
load '/tmp/x.so'
install x from 'http://x'
copy (select 1) to '/dev/stdout'
copy t from stdin
export database '/tmp/x'
lock table t
savepoint x
rollback
deallocate x
execute immediate 'select 1'
kill 1
unload x
refresh materialized view x
insert or replace into t values (1)
replace into t values (1)
explain insert into t values (1)
select unicode_escape('x')
select repeat('x', 10) from "t" . "i"
select "read_text"('{canary}')
select "main"."read_text"('{canary}')
select ('{canary}').read_text()
select '{canary}'.read_text()
select i.read_text() from t
select read_text(content => '{canary}')
select * from identifier('t')
select * from table('t')
select * from table(read_csv('{canary}'))
select {{fn read_text('{canary}')}}
select * from {{oj t left outer join '{canary}' on true}}
""".strip().splitlines()
)
