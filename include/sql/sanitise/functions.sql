-- What services/sanitise/masking.py does, within the server, so that no row has to leave it. The
-- functions live as long as the session; the keys of the HMAC are settings of the session, given
-- as parameters, so that no statement and no log has them.

CREATE FUNCTION pg_temp.neuroca_digest(value bytea) RETURNS bytea LANGUAGE sql STABLE STRICT
AS $$
    SELECT sha256(decode(current_setting('neuroca.outer'), 'hex')
                  || sha256(decode(current_setting('neuroca.inner'), 'hex') || value))
$$;

CREATE FUNCTION pg_temp.neuroca_hex(value text) RETURNS text LANGUAGE sql STABLE STRICT
AS $$ SELECT encode(pg_temp.neuroca_digest(convert_to(value, 'UTF8')), 'hex') $$;

CREATE FUNCTION pg_temp.neuroca_number(value text, bits integer) RETURNS bigint
LANGUAGE sql STABLE STRICT
AS $$ SELECT ('x' || left(pg_temp.neuroca_hex(value), 16))::bit(64)::bigint & ((1::bigint << bits) - 1) $$;

CREATE FUNCTION pg_temp.neuroca_first(hex text) RETURNS text LANGUAGE sql IMMUTABLE STRICT
AS $$
    SELECT (ARRAY['Ada', 'Bela', 'Cleo', 'Dara', 'Emil', 'Faye', 'Gil', 'Hana',
                  'Ivo', 'Juno', 'Kai', 'Lena', 'Milo', 'Nora', 'Otis', 'Pia'])
           [1 + ('x' || substr(hex, 2, 1))::bit(4)::integer]
$$;

CREATE FUNCTION pg_temp.neuroca_last(hex text) RETURNS text LANGUAGE sql IMMUTABLE STRICT
AS $$
    SELECT (ARRAY['Amber', 'Birch', 'Clover', 'Dale', 'Ember', 'Fern', 'Grove', 'Heath',
                  'Isle', 'Jasper', 'Knoll', 'Linden', 'Moss', 'North', 'Oak', 'Pine'])
           [1 + ('x' || substr(hex, 4, 1))::bit(4)::integer]
$$;

CREATE FUNCTION pg_temp.neuroca_fake(value text, kind text) RETURNS text LANGUAGE sql STABLE STRICT
AS $$
    WITH made AS (SELECT pg_temp.neuroca_hex(value) AS hex)
    SELECT CASE kind
        WHEN 'name' THEN
            pg_temp.neuroca_first(hex) || ' ' || pg_temp.neuroca_last(hex) || ' ' || left(hex, 16)
        WHEN 'email' THEN
            lower(pg_temp.neuroca_first(hex) || '.' || pg_temp.neuroca_last(hex) || '.'
                  || left(hex, 16) || '@example.com')
        WHEN 'phone' THEN
            '+999' || lpad((('x' || left(hex, 12))::bit(48)::bigint)::text, 15, '0')
        WHEN 'text' THEN
            left(left(hex, 16) || ' '
                 || repeat('lorem ipsum dolor sit amet consectetur adipiscing elit ',
                           greatest(length(value), 16) / 55 + 1),
                 greatest(length(value), 16))
    END
    FROM made
$$;
