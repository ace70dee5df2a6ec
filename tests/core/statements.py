r"""What is a statement's right judgement? The corpus: one statement a line, in a block for each judgement.

    clean     leaves nothing in the session that survives a rollback
    dirty     leaves something
    begins    leaves a transaction open, ends: has ended one, chains: both
    asks      needs what an earlier statement left in the same session
    cautious  is clean, and called dirty: the accepted mistakes

A second word says what a live server can show of it: ``refused`` (it needs what the lab does not have), ``unseen``
(what it leaves cannot be asked for, or is not there in a new session), ``own`` (about the session's own database).
``\n``, ``\r`` and ``\t`` mean the character.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    sql: str
    kind: str
    live: str = ""


def block(kind: str, lines: str) -> list[Case]:
    judgement, _, live = kind.partition(" ")
    found = [line.strip() for line in lines.strip().splitlines()]
    for escape, character in (("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t")):
        found = [line.replace(escape, character) for line in found]
    return [Case(line, judgement, live) for line in found]


POSTGRESQL = [
    *block("clean", r"""
        select 1
        SELECT * FROM t WHERE id = 1
        \n\t  select 1 ;;
        (select 1) union (select 2)
        ((select 1))
        with x as (select 1) select * from x
        with recursive x(n) as (select 1 union all select n + 1 from x where n < 5) select n from x
        with gone as (delete from t returning *) select count(*) from gone
        values (1), (2)
        table t
        insert into t (v) values (1)
        insert into t (id, v) values (1000, 1) on conflict (id) do update set v = excluded.v returning id
        insert into t (v) select 1
        update t set v = v + 1
        update t set v = 1 where id in (select id from t)
        delete from t where id = -1
        merge into t using (select 1 as id) s on t.id = s.id when matched then do nothing
        select * from t for update
        select * from t for share skip locked
        select * into made_by_select from t
        drop table made_by_select
        truncate t
        set local search_path = elsewhere
        SET LOCAL statement_timeout TO 1234
        set local role somebody
        set local session authorization somebody
        set transaction read only
        set transaction isolation level serializable
        set constraints all deferred
        /* why */ set local work_mem = '8MB'
        -- set x\nselect 1
        -- set x\rselect 1
        /* set x = 1 */ select 1
        /* one /* set x = 1 */ set y = 1 */ select 1
        /*/**/*/select 1
        select 'set search_path = x'
        select '; set search_path = x; '
        select 'it''s; set search_path = x'
        select E'it\'s; set search_path = x'
        select e'\\', 1
        select '\', 1
        select $$; set search_path = x; $$
        select $a$; $$ set search_path = x; $b$ $a$
        select 1 as "; set x = 1"
        select 1 as "set"
        select 'pg_advisory_lock(1)'
        select 1 as pg_advisory_lock
        select "set_config" from (select 1 as set_config) x
        select 2*/*comment*/3
        select 5--1\n+1
        select 1 # 2
        select '{"a": 1}'::jsonb ? 'a', '{1}'::int[] @> '{1}'::int[]
        select '{1,2}'::int[] && '{2}'::int[]
        select U&'\0041'
        select N'x', B'01', X'1F'
        select nextval('s')
        select setval('s', 5)
        select set_config('search_path', 'elsewhere', true)
        select set_config('work_mem', (select '8MB'), TRUE), pg_catalog.set_config('my.v', 'x', true)
        select current_setting('search_path'), pg_backend_pid(), now(), random()
        select pg_advisory_xact_lock(1)
        select pg_advisory_xact_lock_shared(1), pg_try_advisory_xact_lock(2)
        select pg_notify('news', 'x')
        select count(*) from pg_settings
        select f()
        select lo_from_bytea(0, 'x')
        select pg_sleep(0)
        select pg_export_snapshot()
        select temp from (select 1 as temp) temp
        create table temp (a int)
        insert into temp values (1)
        insert into temp select 1
        drop table temp
        show search_path
        show all
        explain select 1
        explain analyze select * from t
        explain (analyze, costs off) update t set v = 1
        explain (verbose) insert into t (v) values (1)
        explain verbose (select 1)
        explain create table not_made as select 1
        analyze
        analyze t
        vacuum t
        vacuum (full, analyze) t
        create table made (a int primary key, b text default 'x')
        create table if not exists made (a int)
        create unlogged table made2 as select 1 as a
        create index on made (b)
        create unique index concurrently made_b on made (b)
        alter table made add column c int default 5
        alter table made alter column b set default 'y'
        alter table made set (fillfactor = 70)
        comment on table made is 'set x = 1; listen'
        create view made_view as select * from made
        create or replace view made_view as select * from made
        create view made_lock as select pg_try_advisory_lock(1)
        create materialized view made_mat as select 1 as a
        refresh materialized view made_mat
        create sequence made_seq
        create type made_type as (a int)
        create domain made_domain as int check (value > 0)
        create function made_f() returns int language sql as 'select 1'
        create function made_g() returns text language sql set a.b = x as $$ select set_config('a', 'b', false) $$
        create function made_h() returns int language sql begin atomic select 1; select case when true then 2 end; end
        create or replace procedure made_p() language plpgsql as $$ begin set work_mem = '8MB'; end $$
        create function made_t() returns trigger language plpgsql as $$ begin return new; end $$
        create trigger made_trigger before insert on made for each row execute function made_t()
        create rule made_rule as on delete to made do instead nothing
        create schema made_schema create table inside (a int)
        create role made_role
        alter role made_role set search_path = x
        alter role made_role reset search_path
        grant select on made to made_role
        revoke select on made from made_role
        reassign owned by made_role to postgres
        drop owned by made_role
        drop role made_role
        cluster made using made_pkey
        reindex table made
        drop view made_lock
        drop schema made_schema cascade
        drop table made, made2 cascade
        create database made_db
        alter database made_db set search_path = x
        drop database made_db
        alter system set work_mem = '5MB'
        alter system reset work_mem
        create extension if not exists plpgsql
        copy t to '/dev/null'
        copy (select * from t) to '/dev/null' with csv
        notify news
        notify news, 'set x = 1'
        checkpoint
        select 1; select 2
        insert into t (v) values (7); select lastval()
        discard plans
        create temp table tt (a int) on commit drop
        CREATE TEMPORARY TABLE tt (a int, check (a > 0)) ON COMMIT DROP
        create temp table if not exists tt (id serial primary key, b text unique) on commit drop
        create local temp table tt (like t including all) with (fillfactor = 70) on commit drop
        create temp table tt on commit drop as select * from t
        create temp table tt (a, b) on commit drop as values (1, 2)
        create temp table tt (a int) on commit drop; select 1
        drop table if exists pg_temp.tt
        do $$ begin null; end $$
        do $do$ begin create type made_enum as enum ('a'); exception when duplicate_object then null; end $do$
        DO LANGUAGE plpgsql $$ BEGIN IF NOT EXISTS (SELECT 1 FROM t) THEN RAISE NOTICE 'none'; END IF; END $$
        do $$ declare r t; begin for r in select id from t loop update t set v = 1 where id = r.id; end loop; end $$
        do $$ begin insert into t (id, v) values (1, 1) on conflict (id) do update set v = 2; end $$ language plpgsql
        do $$ declare n int := 0; begin n := n + 1; perform set_config('my.v', n::text, true); perform f(); end $$
        do $$ begin alter table t add column if not exists w int; create index if not exists t_w on t (w); end $$
        do $$ begin raise notice 'set x = 1; listen news'; /* set x = 1 */ end $$
        do $$ begin create function pg_sql() returns int language sql as 'select 1'; drop function pg_sql(); end $$
        select id, v from t where v is not null order by id desc limit 10 offset 5
        select distinct on (v) * from t order by v, id
        select v, count(*) filter (where id > 1) from t group by v having count(*) > 1
        select v, sum(v) over (partition by v order by id rows between 1 preceding and current row) from t
        select a.id from t a join t b using (id) left join t c on c.id = a.id cross join lateral (select 1) x
        select * from t tablesample system (10)
        select case when v > 1 then 'set' else 'listen' end from t
        select array(select id from t), row(1, 2), (1, 2) = (1, 2)
        select coalesce(v, 0), nullif(v, 0), greatest(1, 2), least(1, 2) from t
        select lower('A'), upper('a'), substring('abc' from 2 for 1), trim(both ' ' from ' a '), position('a' in 'ba')
        select to_char(now(), 'YYYY'), date_trunc('day', now()), extract(epoch from now()), now() - interval '1 day'
        select current_date, current_timestamp, localtime, timestamp '2020-01-01', now() at time zone 'UTC'
        select * from generate_series(1, 3) as g (n)
        select * from unnest(array[1, 2], array['a', 'b']) with ordinality
        select * from json_to_recordset('[{"a": 1}]') as x (a int)
        select jsonb_build_object('a', 1) -> 'a', '{"a": {"b": 1}}'::jsonb #>> '{a,b}', '[1]'::jsonb @> '1'
        select to_tsvector('a b') @@ to_tsquery('a & b'), ts_rank(to_tsvector('a'), to_tsquery('a'))
        select string_agg(v::text, ',' order by id), array_agg(v) from t
        select percentile_cont(0.5) within group (order by v) from t
        select v from t group by rollup (v), cube (id)
        select 1 union all select 2 intersect select 3 except select 4
        select * from t where id = any (array[1, 2]) and v <> all ('{3}') and v between 1 and 2
        select * from t where exists (select from t) and v::text similar to 'a%' or v::text ~ '^a' or v::text like 'a%'
        select * from information_schema.tables
        select relname from pg_catalog.pg_class where relkind = 'r' and pg_table_is_visible(oid)
        select pg_size_pretty(pg_total_relation_size('t')), to_regclass('t'), version(), current_database()
        select pg_is_in_recovery(), txid_current(), pg_current_wal_lsn()
        select * from pg_stat_activity where pid <> pg_backend_pid()
        insert into t default values
        insert into t (v) values (1), (2), (3) returning id, v
        insert into t (id, v) overriding system value select 2000, 1
        insert into t as x (id, v) values (1, 2) on conflict on constraint t_pkey do update set v = x.v where x.v < 5
        update t as x set (v) = row (y.v) from t y where y.id = x.id
        update t set v = default where id = -1
        delete from t using t b where b.id = t.id and t.id = -1 returning *
        truncate t restart identity cascade
        select * from t for no key update of t nowait
        explain (format json) select * from t
        create table made_parts (a int, b date) partition by range (b)
        create table made_part partition of made_parts for values from ('2020-01-01') to ('2021-01-01')
        alter table made_parts detach partition made_part
        drop table made_part, made_parts
        alter table t alter column v type bigint using v::bigint
        alter table t add constraint t_check check (v is null or v > -100) not valid
        alter table t validate constraint t_check
        alter table t drop constraint t_check
        create index t_v on t using btree (v desc nulls last) include (id) where v > 0
        drop index if exists t_v
        create collation if not exists made_collation (locale = 'C')
        drop collation made_collation
        create publication made_publication for table t
        drop publication made_publication
        create statistics made_statistics on id, v from t
        drop statistics made_statistics
        create policy made_policy on t using (current_setting('my.v', true) is not null)
        alter table t enable row level security
        drop policy made_policy on t
        alter table t disable row level security
        create aggregate made_sum (int) (sfunc = int4pl, stype = int)
        drop aggregate made_sum (int)
        create operator === (leftarg = int, rightarg = int, function = int4eq)
        drop operator === (int, int)
        alter default privileges grant select on tables to public
        alter default privileges revoke select on tables from public
        grant usage on schema public to public
        copy t (id, v) to '/dev/null' with (format csv, header)
        comment on column t.v is null
    """),
    *block("clean refused", r"""
        lock table t in access share mode nowait
        import foreign schema x from server y into z
        commit prepared 'x'
        rollback prepared 'x'
        security label on table t is 'x'
        lock table t in exclusive mode
        declare c cursor for select 1
        savepoint a
        release a
        rollback to a
        rollback work to savepoint a
    """),
    *block("dirty", r"""
        set search_path = elsewhere
        SET search_path TO elsewhere
        \n SET\tSESSION search_path = elsewhere
        ;set search_path = elsewhere
        -- a comment\nset search_path = elsewhere
        -- a comment\rset search_path = elsewhere
        /* why /* nested */ */ set search_path = elsewhere
        select 1; set search_path = elsewhere
        set search_path = elsewhere; select 1
        set local work_mem = '8MB'; set work_mem = '9MB'
        select 'it''s'; set search_path = elsewhere
        select '\'; set search_path = elsewhere; select '\'
        select E'\''; set search_path = elsewhere
        select $a$ $b$ $a$; set search_path = elsewhere; select $b$ $b$
        select 2*/*c*/3; set search_path = elsewhere
        set time zone 'Asia/Tokyo'
        set names 'LATIN1'
        set my.secret = 'hunter2'
        set session characteristics as transaction read only
        set session characteristics as transaction isolation level serializable
        set role somebody
        set session authorization somebody
        set seed = 0.5; set extra_float_digits = 0
        set statement_timeout to '5s'
        begin; set search_path = elsewhere; commit
        reset search_path; set datestyle = 'german'
        load 'auto_explain'
        listen news
        LISTEN "News"
        prepare p as select 1
        prepare p (int) as select $1
        prepare p as select 1; execute p
        create temp table tt (a int)
        CREATE TEMPORARY TABLE tt AS SELECT 1
        create local temp table tt (a int)
        create temp table if not exists tt (a int) on commit preserve rows
        create temp sequence tt
        create temp view tt as select 1
        create or replace temp view tt as select 1
        create temp recursive view tt (n) as select 1
        create table pg_temp.tt (a int)
        create table "pg_temp".tt (a int)
        begin; set local search_path = pg_temp; create table tt (a int); commit
        begin; select set_config('search_path', 'pg_temp', true); create table tt (a int); commit
        create function pg_temp.tt() returns int language sql as 'select 1'
        select 1 as a into temp tt
        select 1 as a into temporary table tt
        select 1 as a into local temp table tt
        with x as (select 1 as a) select * into temp tt from x
        explain analyze create temp table tt as select 1
        explain (analyze) create temp table tt as select 1
        declare c cursor with hold for select 1
        begin; declare c insensitive no scroll cursor with hold for select 1; commit
        select pg_advisory_lock(1)
        SELECT PG_ADVISORY_LOCK(1, 2)
        select pg_catalog.pg_advisory_lock(1)
        select "pg_advisory_lock"(1)
        select pg_advisory_lock /* a comment */ (1)
        select U&"pg\005fadvisory_lock"(5)
        select pg_try_advisory_lock(1)
        select pg_advisory_lock_shared(1)
        select pg_try_advisory_lock_shared(1)
        select 1 where pg_try_advisory_lock(3)
        with locked as (select pg_advisory_lock(7)) select * from locked
        insert into t (v) select 1 from (select pg_advisory_lock(9)) x
        update t set v = (select 1 where pg_try_advisory_lock(8))
        explain analyze select pg_advisory_lock(1)
        (select pg_advisory_lock(1))
        copy (select pg_advisory_lock(2)) to '/dev/null'
        create table made_locking as select pg_try_advisory_lock(1)
        drop table made_locking; set search_path = elsewhere
        select set_config('search_path', 'elsewhere', false)
        select set_config('search_path', 'elsewhere', 'off')
        select pg_catalog.set_config('my.v', 'secret', false)
        select set_config('search_path', concat('a', 'b'), 1 = 2)
        select set_config('work_mem', '8MB', false) from pg_settings where name = 'work_mem'
        update pg_settings set setting = '1234' where name = 'statement_timeout'
        update only pg_catalog.pg_settings set setting = '1234' where name = 'statement_timeout'
        select query_to_xml('select pg_advisory_lock(5)', true, true, '')
        select query_to_xml_and_xmlschema('select pg_advisory_lock(5)', true, true, '')
        select ts_stat('select to_tsvector(''a'') from pg_advisory_lock(5)')
        select ts_rewrite('a'::tsquery, 'select ''a''::tsquery, ''b''::tsquery from pg_advisory_lock(5)')
        select * from crosstab('select 1, 2, 3 from pg_advisory_lock(5)') as x (a int, b int)
        select * from crosstab('select 1, 2, 3', 'select 2 from pg_advisory_lock(5)') as x (a int, b int)
        select * from crosstab2('select ''a''::text, ''b''::text, ''c''::text from pg_advisory_lock(5)')
        select * from crosstab3('select ''a''::text, ''b''::text, ''c''::text from pg_advisory_lock(5)')
        select * from crosstab4('select ''a''::text, ''b''::text, ''c''::text from pg_advisory_lock(5)')
        select * from connectby('(select 1 a, 0 b from pg_advisory_lock(5))x','a','b','0',0) x (k int, p int, n int)
        select * from xpath_table('a','b','(select 1 a, '''' b from pg_advisory_lock(5))x','/x','1=1') x (a int, b text)
        select set_limit(0.7)
        create foreign table pg_temp.tt (a int) server made_server
        create temp table tt as select 1 as "on", 2 as "commit", 3 as "drop"
        create temp table tt as select a.on_it from (select true as on_it, true as commit) a join t on commit
        create temp table tt (a int) on commit delete rows
        create temp table tt (a text default 'on commit drop')
        create temp table tt (a int) /* on commit drop */
        create temp table tt (a int) on commit drop; create temp table tt2 (a int)
        create temp table tt on commit drop as select pg_try_advisory_lock(1)
        do $$ begin perform pg_advisory_lock(1); end $$
        do $$ begin create temp table tt (a int); end $$
        do $$ begin create table pg_temp.tt (a int); end $$
        do $$ begin execute 'set search_path = elsewhere'; end $$
        do $$ declare r record; begin for r in execute 'select pg_advisory_lock(1)' loop null; end loop; end $$
        do language plpgsql $$ begin set work_mem = '8MB'; end $$
        do $a$ begin set work_mem = '8MB'; end $a$ language plpgsql
        do $$ begin if true then set work_mem = '8MB'; end if; end $$
        do $$ begin if false then null; else set work_mem = '8MB'; end if; end $$
        do $$ begin for i in 1..2 loop set work_mem = '8MB'; end loop; end $$
        do $$ begin case when true then set work_mem = '8MB'; end case; end $$
        do $$ begin raise exception 'x'; exception when others then set work_mem = '8MB'; end $$
        do $$ << a >> begin << b >> loop set work_mem = '8MB'; exit b; end loop; end $$
        do $$ declare n int; begin select 1 into n from pg_advisory_lock(1); end $$
        do $$ declare n text; begin n := set_config('work_mem', '8MB', false); end $$
        do $$ begin update pg_settings set setting = '1234' where name = 'statement_timeout'; end $$
        do $$ begin perform query_to_xml('select pg_advisory_lock(5)', true, true, ''); end $$
        do $a$ begin do $$ begin set work_mem = '8MB'; end $$; end $a$
        do $$ begin call leaves(); end $$
        do $$ begin listen news; end $$
        do $$ begin null; end $$; set search_path = elsewhere
        do E'begin set work_mem = \'8MB\'; end'
        do 'begin set search_path = elsewhere; end'
        call leaves()
        create function made_i() returns int language sql begin atomic select 1; end; set search_path = elsewhere
        drop function made_i; set search_path = elsewhere
        /* it's */ set search_path = elsewhere -- isn't
    """),
    *block("dirty unseen", r"""
        reset all
        reset search_path
        reset role
        discard all
        discard temp
        deallocate all
        unlisten *
        unlisten news
        set seed = 0.5
        select setseed(0.5)
        create table pg_temp_3.tt (a int)
        select 1 as a into pg_temp_3.tt
        create extension hstore schema pg_temp_3
        do $$ begin perform '\'; set work_mem = '8MB'; end $$
        do $$ begin perform '\''; set work_mem = '8MB'; perform '\''; end $$
        do language plperl $$ $$
        do $$ begin set local work_mem = '8MB'
        do $$ ' this never ends $$
        execute p
        deallocate p
        select dblink_connect('x', 'dbname=y')
        select pg_create_physical_replication_slot('x', true, true)
        select set_config('work_mem', %s, %s)
        select set_config('work_mem', '8MB', $1)
        grobble
        %s
        ; select ' this never ends
        ; select 1 /* this never ends
        ; select $a$ this never ends $b$
    """),
    *block("begins", r"""
        begin
        BEGIN TRANSACTION
        begin work isolation level serializable read only
        start transaction
        -- now\n START  TRANSACTION read only
        /* now */ begin;
        select 1; begin
        begin; select 1
        begin; insert into t (v) values (3); savepoint a
    """),
    *block("ends", r"""
        begin; lock table t; commit
        begin; lock t in share mode; rollback
        begin; set local work_mem = '8MB'; select 1; commit
        begin; declare c cursor for select 1; fetch all from c; commit
        begin; declare c scroll cursor without hold for with hold as (select 1) select * from hold; close c; end
        begin; savepoint a; rollback to savepoint a; release savepoint a; commit
        commit
        COMMIT WORK
        commit and no chain
        rollback
        rollback transaction
        end
        END;
        abort
        begin; select 1; commit
        begin; rollback
    """),
    *block("ends refused", "prepare transaction 'x'"),
    *block("chains", "commit; begin\nrollback; start transaction"),
    *block("chains refused", "commit and chain\nrollback work and chain"),
    *block("asks refused", r"""
        select lastval()
        select currval('s')
        SELECT pg_catalog.CURRVAL ('s')
        insert into t (id, v) values (currval('s'), 1)
        fetch next from c
        move c
        close c
    """),
    *block("asks", r"""
        select pg_advisory_unlock(1)
        select pg_advisory_unlock_all()
        select nextval('s'), currval('s')
    """),
    *block("cautious", r"""
        explain select pg_advisory_lock(1)
        select 'a\' as x, '; grobble'
        call harmless()
        load 'plpgsql'
    """),
]  # fmt: skip

MYSQL = [
    *block("clean", r"""
        select 1
        SELECT * FROM t WHERE id = 1
        \n\t  select 1
        (select 1) union (select 2)
        with x as (select 1 as a) select * from x
        values (1), (2)
        insert into t (v) values (1)
        insert into t (id, v) values (1000, 1) on duplicate key update v = values(v)
        insert ignore into t (v) select 1
        insert into t set v = 1
        insert into t (v) values (1) returning id
        replace into t (id, v) values (1, 1)
        update t set v = v + 1
        update t set v = 1 where id in (select id from (select id from t) x)
        delete from t where id = -1
        delete t from t join t as u on t.id = u.id where t.id = -1
        select * from t for update
        select * from t lock in share mode
        select sql_calc_found_rows * from t limit 1
        select sql_no_cache 1
        select straight_join 1
        truncate t
        truncate table t
        select 'set @a = 1'
        select '; set @a = 1; '
        select 'it''s; set @a = 1'
        select 'it\'s get_lock'
        select "it's; set @a = 1"
        select "it""s"
        select '\\', "\\"
        select 1 as `; set @a = 1`
        select 1 as `set`
        select 'get_lock(1)'
        select 1 as get_lock
        -- set @a = 1\nselect 1
        # set @a = 1\nselect 1
        --\nselect 1
        --\t set @a = 1\nselect 1
        /* set @a = 1 */ select 1
        /**/select 1
        select 5--1
        select 5 -- 1; set @a = 1
        select 2*/*comment*/3
        select /*+ max_execution_time(1000) */ 1
        select /*!40001 sql_no_cache */ 1
        /*!40000 select 1 */
        /*M!100100 select 1 */
        select /*!99999 9, */ 1
        select _utf8'a', N'x', x'1F', b'01', 0x1F, 1e5
        select 'user@host', 'a := b'
        select 1 as `a@b`
        select @@version
        select @@session.sql_mode, @@global.max_connections, @@autocommit
        select is_used_lock('l'), is_free_lock('l')
        select connection_id(), database(), user(), now(), rand(), uuid_short()
        select sleep(0)
        select nextval(s)
        select next value for s
        select setval(s, 100)
        select f()
        select last_insert_id(5)
        update t set id = last_insert_id(id + 1) where id = -1
        set password for somebody = password('secret')
        set password for 'somebody'@'%' = password('secret')
        set default role none
        set global max_connections = 150
        set @@global.slow_query_log = 0
        SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ
        set statement max_statement_time = 1 for select 1
        show tables
        show variables like 'sql_mode'
        show session status like 'Threads%'
        show create table t
        show full processlist
        show grants
        show index from t
        show engine innodb status
        explain select 1
        explain extended select * from t
        explain format=json select * from t
        explain t
        describe t
        desc t v
        analyze table t
        analyze select * from t
        analyze format=json select * from t
        optimize table t
        check table t
        checksum table t
        repair table t
        help 'x'
        create table made (a int primary key, b varchar(20) default 'x')
        create table if not exists made (a int)
        create table made2 as select 1 as a
        create or replace table made2 like made
        create index made_b on made (b)
        alter table made add column c int default 5
        alter table made rename to made3
        rename table made3 to made
        create view made_view as select * from made
        create or replace algorithm=merge view made_view as select a from made
        create view made_lock as select get_lock('l', 1)
        create sequence made_seq
        create procedure made_p() select get_lock('l', 1)
        create procedure made_q() begin set @a = 1; select case when 1 then 2 end; end
        create procedure made_r() begin if 1 then set @a = 1; end if; case 1 when 1 then select 1; end case; end
        create procedure made_l() begin l: loop leave l; end loop l; while 0 do select 1; end while; end
        create definer=root@localhost function made_f() returns int return get_lock('l', 1)
        create or replace function made_f() returns int begin declare a int; select 1 into a; return a; end
        create trigger made_trigger before insert on made for each row set new.b = 'set'
        create event made_event on schedule every 1 year do set @a = 1
        create user made_user identified by 'secret'
        create user made_user2@localhost
        alter user made_user identified by 'other'
        grant select on test.* to made_user
        grant select on test.* to made_user2@localhost
        revoke select on test.* from made_user
        create role made_role
        drop role made_role
        drop user made_user, made_user2@localhost
        drop event made_event
        drop procedure made_p
        drop function made_f
        drop view made_view
        drop table made, made2
        drop temporary table if exists tt
        create database made_db
        flush privileges
        flush tables
        flush tables t
        flush logs
        flush status
        reset query cache
        purge binary logs before now()
        xa recover
        stop slave
        select 1; select 2
        insert into t (v) values (7); select last_insert_id()
        select sql_calc_found_rows * from t limit 1; select found_rows()
        savepoint a
        do 1
        do f(), sleep(0)
        DO /* set @a = 1 */ 1
        set global max_connections = 150, global slow_query_log = 0
        set @@global.max_connections = 150, @@global.slow_query_log = 0, global long_query_time = 10
        select id, v from t where v is not null order by id desc limit 10 offset 5
        select t.*, statements.t.v as `from` from statements.t where t.id = 1
        select count(*), count(distinct v), min(v), max(v), avg(v) from t where v <> 5
        select * from t where v is null or v in (1, 2, 3) or not v = 4
        select * from t where id = (select max(id) from t)
        select * from t a where v > (select avg(v) from t b where b.id = a.id)
        select * from t order by v is null, v desc, rand() limit 1
        select first_value(v) over (order by id), rank() over (order by v), ntile(4) over (order by id) from t
        select a.* from (select * from t limit 5) a right join t b on b.id = a.id and b.v = 1
        select t.id from t left join t as `order` on t.id = `order`.id where `order`.id is null
        select json_value('{"a": 1}', '$.a'), json_contains('[1]', '1'), json_length('[1]')
        select * from json_table('[{"a": 1}]', '$[*]' columns (a int path '$.a')) x
        select interval(5, 1, 10), 1 in (1, 2), 5 between 1 and 9, 'a' sounds like 'a', char(65 using utf8mb4)
        select date '2020-01-01', time '10:00:00', timestamp '2020-01-01 00:00:00', now() - interval 1 hour
        select 1 from dual where 1 = 1 limit 0
        insert into t (v) values (1), (2), (3)
        insert into t (id, v) values (500, 1) on duplicate key update v = v + 1, id = last_insert_id(id)
        insert into t (v) select v from t where id = -1 union select 5
        insert into statements.t (v) value (default(v))
        update t set v = case id when 1 then 5 else v end where id in (1, 2)
        update t set v = v + 1, id = id where v < 100 limit 5
        update t join (select 1 as id) x using (id) set t.v = 7
        update t set v = (select 5) where id = -1
        delete from t where v = 12345 limit 10
        delete t from t where t.id = -1
        select distinct v from t limit 5, 10
        select v, count(*) from t group by v with rollup having count(*) > 1
        select v, sum(v) over (partition by v order by id rows between 1 preceding and current row) from t
        select row_number() over w, lag(v) over w from t window w as (order by id)
        select a.id from t a join t b using (id) left join t c on c.id = a.id cross join t d
        select a.id from t a natural join t b where a.id in (select id from t) and exists (select 1 from t)
        select case when v > 1 then 'set' else 'use' end from t
        select if(v, 1, 2), ifnull(v, 0), coalesce(v, 0), nullif(v, 0), greatest(1, 2), isnull(v) from t
        select lower('A'), concat('a', 'b'), concat_ws(',', 1, 2), substring('abc', 2), replace('a', 'a', 'b')
        select left('abc', 1), lpad('a', 3, ' '), trim('  a '), locate('a', 'ba'), field('a', 'b'), elt(1, 'a')
        select date_format(now(), '%Y'), date_add(now(), interval 1 day), unix_timestamp(), from_unixtime(0)
        select curdate(), current_timestamp(6), utc_timestamp(), timestampdiff(day, now(), now()), last_day(now())
        select extract(year from now()), year(now()), str_to_date('2020', '%Y'), convert_tz(now(), '+00:00', '+01:00')
        select json_object('a', 1), json_extract('{"a": 1}', '$.a'), json_unquote('"a"'), json_array(1, 2)
        select group_concat(v order by id separator ','), bit_or(v), std(v), json_arrayagg(v) from t
        select cast('1' as signed), convert('a' using latin1), binary 'a', 'a' collate utf8mb4_bin
        select md5('a'), sha2('a', 256), hex('a'), unhex('61'), uuid(), crc32('a'), to_base64('a')
        select abs(-1), round(1.5), floor(1.5), mod(5, 3), pow(2, 3), 5 div 2, 5 % 2, 1 << 2, ~1, 1 ^ 2
        select 'a' like 'a%' escape '|', 'a' regexp '^a', 'a' rlike 'a', null <=> null, not 1, !1, 1 xor 0
        select inet_aton('127.0.0.1'), inet6_ntoa(inet6_aton('::1')), format(1.5, 1), sformat('{}', 1)
        select schema(), current_user(), version(), @@hostname, charset('a'), collation('a'), benchmark(1, 1)
        select master_pos_wait('x', 4, 0), release_lock is null from (select 1 as release_lock) x
        select * from information_schema.tables where table_schema = database()
        select * from performance_schema.threads limit 1
        select * from mysql.user
        select * from seq_1_to_5
        select * from (values (1, 2), (3, 4)) x
        select * from t use index (primary) where id = 1
        select high_priority sql_small_result v from t group by v
        (select 1) union all (select 2) order by 1 limit 1
        select 1 intersect select 1 except select 2
        select * from t where (id, v) in ((1, 2), (3, 4)) and v between 1 and 2
        select * from t for update skip locked
        select * from t lock in share mode nowait
        with recursive x (n) as (select 1 union all select n + 1 from x where n < 5) select n from x
        insert into t () values ()
        insert into t values (null, 1), (default, 2)
        insert low_priority into t (v) values (1)
        insert into t (id, v) select id + 100000, v from t where id = -1 on duplicate key update v = 1
        replace into t set id = 1, v = 2
        replace into t (v) select 1
        update ignore t set v = v + 1 order by id limit 1
        update low_priority t as x set x.v = 1 where x.id = -1
        delete quick from t where id = -1 order by id limit 1
        delete a from t a join t b on a.id = b.id where a.id = -1
        delete from t where id = -1 returning id
        show databases like 'a%'
        show full tables from mysql
        show columns from t
        show full fields from t
        show keys from t
        show table status
        show triggers
        show events
        show function status
        show procedure status
        show create database statements
        show character set
        show collation
        show engines
        show plugins
        show privileges
        show open tables
        show global variables like 'max_connections'
        show global status like 'Uptime'
        show slave hosts
        show create user root@localhost
        show storage engines
        explain update t set v = 1 where id = 1
        explain partitions select * from t
        describe select * from t
        create table made_parts (a int) partition by hash (a) partitions 4
        alter table made_parts add partition partitions 2
        alter table made_parts remove partitioning
        drop table if exists made_parts, made_nothing
        create table made_keys (a int, b int, unique key (a), key made_ab (a, b), constraint made_c check (a > 0))
        alter table made_keys engine = aria, comment = 'set @a = 1'
        alter table made_keys convert to character set utf8mb4
        alter table made_keys drop key made_ab, add index made_b (b), algorithm = copy, lock = shared
        alter table made_keys alter column b set default 5
        alter table made_keys auto_increment = 100
        drop index made_b on made_keys
        create table made_like like made_keys
        rename table made_like to made_like2, made_keys to made_keys2
        truncate made_like2
        drop tables made_like2, made_keys2
        create database if not exists made_db character set utf8mb4 collate utf8mb4_bin
        create table made_db.a (a int)
        insert into made_db.a values (1)
        drop table made_db.a
        create or replace function made_two(a int) returns int deterministic return a * 2
        select made_two(2)
        drop function made_two
        create or replace view made_v2 as select * from t with check option
        alter view made_v2 as select id from t
        drop view if exists made_v2
        create or replace procedure made_p2(in a int, out b int) begin declare c cursor for select 1; set b = a; end
        drop procedure if exists made_p2
        create or replace sequence made_s2 start with 5 increment by 5 cache 10
        alter sequence made_s2 restart 10
        drop sequence made_s2
        create user if not exists made_u2@localhost identified by 'set @a = 1' require ssl
        rename user made_u2@localhost to made_u3@localhost
        grant all privileges on *.* to made_u3@localhost with grant option
        revoke all privileges, grant option from made_u3@localhost
        set password for made_u3@localhost = password('other')
        drop user if exists made_u3@localhost
        flush hosts
        flush user_resources
        flush binary logs
        flush query cache
        analyze table t persistent for all
        check table t quick
        checksum table t quick
        repair no_write_to_binlog table t
        optimize local table t
        set global sql_mode = default
        set global event_scheduler = off
        select get_lock_count from (select 1 as get_lock_count) x
    """),
    *block("clean refused", r"""
        reset master
        select v from t into outfile '/dev/null'
        kill query 999999999
        table t
        release savepoint a
        rollback to a
        rollback work to savepoint a
        start slave
        start replica
        change master to master_host = 'x'
        signal sqlstate '45000' set message_text = 'x'
        load data infile '/nowhere' into table t
        load data local infile '/nowhere' into table t (id, v) set v = 1
        install plugin x soname 'y'
        cache index t in x
        set persist max_connections = 151
        reset persist
    """),
    *block("dirty", r"""
        set @a = 1
        SET @a := 1
        \n SET\t@a = 1
        -- a comment\nset @a = 1
        # a comment\nset @a = 1
        /* why */ set @a = 1
        /*!40101 set @a = 1 */
        /*! set @a = 1 */
        /*M!100100 set @a = 1 */
        select 1; set @a = 1
        set @a = 1; select 1
        select 'it\'s'; set @a = 1
        select 'it''s'; set @a = 1
        select "it's"; set @a = 1
        select '\\'; set @a = 1; select '\\'
        select 1 as `a'b`; set @a = 1 -- '
        select 5--1; set @a = 1
        select 1 /*! , @a := 1 */
        set @`a b` = 1
        set @'a b' = 1
        set @a = 1, @b = 'secret'
        set sql_mode = 'ANSI_QUOTES'
        set session sql_mode = 'ANSI_QUOTES'
        set local sql_mode = 'ANSI_QUOTES'
        set @@sql_mode = 'ANSI_QUOTES'
        set @@session.sql_mode = 'ANSI_QUOTES'
        set @@local.sql_mode = 'ANSI_QUOTES'
        set global max_connections = 150, @a = 1
        set sql_mode = 'ANSI_QUOTES', global max_connections = 150
        set @@global.max_connections = 150, @@sql_mode = 'ANSI_QUOTES'
        execute immediate concat('us', 'e mysql')
        set global max_connections = 150, session sql_mode = 'ANSI_QUOTES'
        set names latin2
        set character set latin2
        set time_zone = '+09:00'
        set autocommit = 1 - @@autocommit
        set session transaction read only
        set local transaction isolation level serializable
        set foreign_key_checks = 0
        set statement max_statement_time = 1 for select @a := 1
        set role some_role
        set last_insert_id = 5; set @a = 1
        use mysql
        USE `mysql`
        select @a := 1
        select @a:=v from t
        select (@a := 1) + 1
        select @`a` := 1
        select @a /* a comment */ := 1
        select 1 into @a
        select 1, 2 into @a, @b
        select v from (select 5 as v) x limit 1 into @a
        update t set v = (@a := 5)
        insert into t (v) values (@a := 5)
        insert into t (v) select @a := 5
        delete from t where id = (@a := -1)
        with x as (select @a := 1) select * from x
        (select @a := 1)
        create or replace table made_from as select @a := 1 as a
        get diagnostics @a = number
        explain select * from (select get_lock('l', 0)) x
        analyze select get_lock('l', 0)
        select get_lock('l', 0)
        SELECT GET_LOCK('l', 0)
        select get_lock ('l', 0)
        select `get_lock`('l', 0)
        select get_lock/* a comment */('l', 0)
        select 1 where get_lock('l', 0)
        select 5--get_lock('l', 0)
        select * from t where id = -1 or get_lock('l', 0)
        insert into t (v) values (get_lock('l', 0))
        update t set v = get_lock('l', 0)
        do get_lock('l', 0)
        do @a := 1
        do 1, (@a := 1)
        do 1; set @a = 1
        create temporary table tt (a int)
        CREATE TEMPORARY TABLE tt SELECT 1 AS a
        create or replace temporary table tt (a int)
        create temporary table if not exists tt like t
        /*!50000 create temporary table tt (a int) */
        create /*!50000 temporary */ table tt (a int)
        lock tables t write
        lock table t read
        LOCK TABLES t READ LOCAL, t AS u READ
        flush tables with read lock
        flush local tables with read lock
        flush tables t with read lock
        flush tables t for export
        backup stage start
        backup lock t
        handler t open
        handler t open as h
        prepare p from 'select 1'
        prepare p from 'select 1'; execute p
        execute immediate 'set @a = 1'
        call leaves()
        begin not atomic set @a = 1; end
        if 1 then set @a = 1; end if
        xa start 'x'
        xa begin 'x'
        create or replace procedure made_x() begin select 1; end; set @a = 1
        create or replace procedure made_y() select 1; set @a = 1
        begin; set @a = 1; commit
    """),
    *block("dirty own", r"""
        drop database own
        DROP DATABASE IF EXISTS `own`
        drop schema own
        /*!50000 drop database own */
        select 1; drop database own
        create or replace database own
        CREATE OR REPLACE SCHEMA own CHARACTER SET latin1
        alter database own character set utf8mb4
        alter database character set utf8mb4
        alter schema own collate utf8mb4_bin
    """),
    *block("dirty unseen", r"""
        set autocommit = 0
        deallocate prepare p
        create procedure made_z() begin select 1; set @a = 1
        set statement max_statement_time = get_lock('l', 0) for select 1
        set transaction read only
        ;set @a = 1
        drop prepare p
        execute p
        execute p using @a
        handler t close
        handler t read first
        xa end 'x'
        xa commit 'x'
        xa rollback 'x'
        set resource group x
        lock instance for backup
        load data infile '/nowhere' into table t (@a) set v = @a
        select service_get_write_locks('a', 'b', 1)
        select "get_lock"('l', 1)
        binlog 'x'
        return 1
        grobble
        l: begin not atomic select 1; end
        ? = call p()
        ; select 'this never ends
        ; select "this never ends
        ; select 1 /* this never ends
        ; select ` this never ends
    """),
    *block("begins", r"""
        begin
        BEGIN WORK
        start transaction
        start transaction with consistent snapshot, read only
        -- now\n START  TRANSACTION read only
        /*!50000 begin */
        begin; select 1
    """),
    *block("ends", r"""
        begin; insert into t (v) values (1); commit
        begin; savepoint a; rollback to savepoint a; release savepoint a; commit
        commit
        COMMIT WORK
        commit and no chain no release
        rollback
        rollback work
        begin; select 1; commit
    """),
    *block("chains", r"""
        commit and chain
        rollback work and chain
        commit; begin
    """),
    *block("asks", r"""
        select last_insert_id()
        SELECT LAST_INSERT_ID ( )
        insert into t (v) values (last_insert_id())
        select found_rows()
        select row_count()
        select `row_count`()
        show warnings
        SHOW ERRORS
        show warnings limit 5
        show count(*) warnings
        show profiles
        select @@warning_count
        select @@session.error_count
        select @@identity, @@last_insert_id
        select @a
        select * from t where id = @a
        explain select @a
        insert into t (v) values (@a)
        select release_lock('l')
        select release_all_locks()
        select lastval(s)
        select previous value for s
        unlock tables
        backup unlock
    """),
    *block("asks refused", "backup stage end"),
    *block("cautious refused", "/*!40000 select ' */; set @a = 1 -- '"),
    *block("cautious", r"""
        /*! select 1 /* inner */ */
        explain select get_lock('l', 0)
        call harmless()
        set global max_connections = 150, slow_query_log = 0
        alter database made_db character set latin1
        drop database made_db
    """),
]  # fmt: skip

SQLITE = [
    *block("clean", r"""
        select 1
        with x as (select 1) select * from x
        values (1)
        insert into t (v) values (1)
        insert or replace into t (id, v) values (1, 1)
        replace into t (id, v) values (1, 1)
        update or ignore t set v = 1
        delete from t
        -- pragma x = 1\nselect 1
        /* pragma x = 1 */ select 1
        select 'pragma x = 1; attach'
        select 1 as [pragma; x], 1 as "attach", 1 as `detach`
        ; select 1 /* this never ends, and need not
        select * from pragma_table_info('t')
        create table made (a integer primary key, temp text)
        create table if not exists temporary (a int)
        create index made_temp on made (temp)
        create view made_view as select changes()
        create trigger made_trigger after insert on made begin select changes(); select case when 1 then 2 end; end
        create virtual table made_fts using fts5(body)
        alter table made rename to made2
        drop table made2
        analyze
        reindex
        vacuum
        explain select 1
        explain query plan select * from t
        explain vacuum
        pragma foreign_keys
        pragma main.foreign_keys
        pragma table_info(t)
        PRAGMA table_info('t')
        pragma index_list(t)
        pragma integrity_check(5)
        pragma user_version = 5
        pragma user_version
        pragma wal_checkpoint(truncate)
        pragma optimize
    """),
    *block("clean refused", r"""
        release a
        rollback to a
    """),
    *block("clean", "savepoint a"),
    *block("dirty", r"""
        pragma foreign_keys = 1
        PRAGMA foreign_keys=ON
        pragma foreign_keys(1)
        pragma main.cache_size = 100
        -- why\npragma busy_timeout = 7
        /* why */ pragma recursive_triggers = 1
        attach ':memory:' as other
        ATTACH DATABASE ':memory:' AS other
        create temp table tt (a int)
        create temporary table tt as select 1
        create table temp.tt (a int)
        create table "temp".tt (a int)
        create table [temp].tt (a int)
        create temp view tt as select 1
        create temp trigger tt after insert on t begin select 1; end
    """),
    *block("dirty unseen", r"""
        detach other
        pragma case_sensitive_like = 1
        select load_extension('x')
        grobble
        ; select ' this never ends
    """),
    *block("begins", r"""
        begin
        BEGIN IMMEDIATE
        begin exclusive transaction
        /* now */ begin deferred
    """),
    *block("ends refused", r"""
        commit
        end transaction
        rollback
    """),
    *block("asks", r"""
        select changes()
        select total_changes()
        SELECT last_insert_rowid()
        insert into t (v) values (last_insert_rowid())
        select "changes"()
    """),
]  # fmt: skip

CORPUS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "sqlite": SQLITE}
