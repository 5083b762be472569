-- auth.api_key: each key is a whole HS256 JWT, made by a trigger and kept readable in `token`.
--
-- Facts that matter when keys are served from it:
--   * row-level security is on: a role that neither owns the table nor has BYPASSRLS reads zero
--     rows and gets no error;
--   * revoked_at may return to NULL: owners may update it;
--   * rows vanish, with no statement naming them, when their user is deleted (ON DELETE CASCADE);
--   * changing expires_at leaves the JWT, and so its `exp`, as it was;
--   * `token` may be NULL where rows came in with the trigger disabled.

CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA public;

-- Roles belong to the whole server, where another database may have created this one already.
DO $$
BEGIN
    CREATE ROLE authenticated NOLOGIN;
EXCEPTION WHEN duplicate_object THEN
    NULL;
END
$$;

-- JSON web tokens ------------------------------------------------------------------------------

-- base64url without padding (RFC 7515 §2). encode() also breaks lines after 76 characters.
CREATE FUNCTION public.url_encode(data bytea) RETURNS text
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT translate(encode(data, 'base64'), E'+/=\n', '-_')
$$;

CREATE FUNCTION public.sign(payload json, secret text, algorithm text DEFAULT 'HS256')
RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    header text := format('{"alg":"%s","typ":"JWT"}', algorithm);
    signed text := public.url_encode(convert_to(header, 'UTF8')) || '.'
        || public.url_encode(convert_to(payload::text, 'UTF8'));
    hash   text := CASE algorithm
        WHEN 'HS256' THEN 'sha256'
        WHEN 'HS384' THEN 'sha384'
        WHEN 'HS512' THEN 'sha512'
    END;
BEGIN
    IF hash IS NULL THEN
        RAISE EXCEPTION 'unsupported JWT algorithm %', algorithm;
    END IF;
    RETURN signed || '.' || public.url_encode(
        public.hmac(convert_to(signed, 'UTF8'), convert_to(secret, 'UTF8'), hash)
    );
END
$$;

-- Users and secrets ----------------------------------------------------------------------------

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO authenticated;

CREATE TABLE auth."user" (
    id                 integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sub                uuid NOT NULL UNIQUE DEFAULT public.gen_random_uuid(),
    display_name       text NOT NULL,
    email              text NOT NULL UNIQUE,
    statbus_role       text NOT NULL DEFAULT 'regular_user',
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    email_confirmed_at timestamptz,
    deleted_at         timestamptz
);

-- No policy at all, so only code that runs as a superuser can read it.
CREATE TABLE auth.secrets (
    key         text PRIMARY KEY,
    value       text NOT NULL,
    description text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE auth.secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.secrets FORCE ROW LEVEL SECURITY;

INSERT INTO auth.secrets (key, value, description)
VALUES ('jwt_secret', encode(public.gen_random_bytes(32), 'hex'), 'Signs and verifies the JWTs');

CREATE FUNCTION auth.jwt_secret() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = auth, pg_temp AS $$
    SELECT value FROM auth.secrets WHERE key = 'jwt_secret'
$$;
REVOKE ALL ON FUNCTION auth.jwt_secret() FROM PUBLIC;

-- The user of a request, from the claims that the REST layer sets.
CREATE FUNCTION auth.uid() RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::json ->> 'uid')::integer
$$;

CREATE FUNCTION auth.build_jwt_claims(
    p_email text,
    p_expires_at timestamptz,
    p_type text,
    p_additional_claims jsonb DEFAULT '{}'
) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = auth, pg_temp AS $$
DECLARE
    _user auth."user";
BEGIN
    SELECT * INTO STRICT _user FROM auth."user" WHERE email = p_email;
    RETURN jsonb_build_object(
        'role', _user.email,
        'statbus_role', _user.statbus_role,
        'sub', _user.sub::text,
        'uid', _user.id,
        'email', _user.email,
        'display_name', _user.display_name,
        'type', p_type,
        'iat', extract(epoch FROM clock_timestamp())::integer,
        'exp', extract(epoch FROM p_expires_at)::integer
    ) || p_additional_claims;
END
$$;
REVOKE ALL ON FUNCTION auth.build_jwt_claims(text, timestamptz, text, jsonb) FROM PUBLIC;

CREATE FUNCTION auth.generate_jwt(claims jsonb) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, auth, pg_temp AS $$
    SELECT public.sign(claims::json, auth.jwt_secret())
$$;
REVOKE ALL ON FUNCTION auth.generate_jwt(jsonb) FROM PUBLIC;

-- Keys -----------------------------------------------------------------------------------------

CREATE TABLE auth.api_key (
    id          integer GENERATED ALWAYS AS IDENTITY,
    jti         uuid NOT NULL DEFAULT public.gen_random_uuid(),
    user_id     integer NOT NULL,
    description text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,  -- copied from the JWT for reference
    revoked_at  timestamptz,           -- NULL while active
    token       text,                  -- the generated JWT
    CONSTRAINT api_key_pkey PRIMARY KEY (id),
    CONSTRAINT api_key_jti_key UNIQUE (jti),
    CONSTRAINT api_key_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES auth."user" (id) ON DELETE CASCADE
);
CREATE INDEX api_key_user_id_idx ON auth.api_key (user_id);

ALTER TABLE auth.api_key ENABLE ROW LEVEL SECURITY;
CREATE POLICY select_own_api_keys ON auth.api_key FOR SELECT
    USING (user_id = auth.uid());
CREATE POLICY insert_own_api_keys ON auth.api_key FOR INSERT
    WITH CHECK (user_id = auth.uid());
CREATE POLICY revoke_own_api_keys ON auth.api_key FOR UPDATE
    USING (user_id = auth.uid()) WITH CHECK (user_id = auth.uid());
CREATE POLICY delete_own_api_keys ON auth.api_key FOR DELETE
    USING (user_id = auth.uid());

GRANT SELECT, INSERT, DELETE, UPDATE (description, revoked_at) ON auth.api_key TO authenticated;

-- The token given by the caller is overwritten.
CREATE FUNCTION auth.generate_api_key_token() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, auth, pg_temp AS $$
DECLARE
    _email text;
BEGIN
    SELECT email INTO _email FROM auth."user" WHERE id = NEW.user_id AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'User not found for API key creation';
    END IF;
    NEW.token := auth.generate_jwt(
        auth.build_jwt_claims(
            p_email => _email,
            p_expires_at => NEW.expires_at,
            p_type => 'api_key',
            p_additional_claims => jsonb_build_object(
                'description', NEW.description,
                'jti', NEW.jti::text
            )
        )
    );
    RETURN NEW;
END
$$;

CREATE TRIGGER generate_api_key_token_trigger BEFORE INSERT ON auth.api_key
    FOR EACH ROW EXECUTE FUNCTION auth.generate_api_key_token();

-- The application's own way to revoke. Row level security confines it to the caller's keys.
CREATE FUNCTION public.revoke_api_key(key_jti uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE auth.api_key SET revoked_at = clock_timestamp() WHERE jti = key_jti;
    RETURN FOUND;
END
$$;
