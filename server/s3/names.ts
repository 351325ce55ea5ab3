/**
 * Names that become part of a host name, so that nothing else may pass. Buckets made before 2018 may have upper case,
 * underscores and up to 255 characters (Amazon S3 User Guide, "Bucket naming rules").
 */
export const BUCKET_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]";

/** eu-central-1, us-iso-east-1; other stores name theirs alike. */
export const REGION_NAME = /^(?=.{4,32}$)[a-z]{2,}(-[a-z0-9]+){1,4}$/;
