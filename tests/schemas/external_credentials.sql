-- public.external_credentials: keys in plain text, as a Laravel application keeps them.
--
-- Facts that matter when keys are served from it:
--   * times carry no zone (the application's zone is unknown);
--   * UNIQUE covers soft-deleted rows too, so a deleted key can never be inserted again,
--     only restored by setting deleted_at back to NULL;
--   * many keys may share one copper_id; there is no expiry and there are no scopes.

CREATE TABLE public.external_credentials (
    id         bigserial NOT NULL,
    copper_id  integer NOT NULL,
    api_key    varchar(255) NOT NULL,
    data       json NOT NULL,
    created_at timestamp(0) without time zone,
    updated_at timestamp(0) without time zone,
    deleted_at timestamp(0) without time zone,
    CONSTRAINT external_credentials_pkey PRIMARY KEY (id),
    CONSTRAINT unique_external_credentials_api_key UNIQUE (api_key)
);
