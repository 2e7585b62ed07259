// A service that has no token to begin with. It logs in as what it is with the
// helpers of HashiCorp's own client, keeps the token alive with its lifetime
// watcher, and logs in anew when the token can be renewed no further. Between
// that it reads a secret once a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
	"github.com/hashicorp/vault/api/auth/userpass"
)

func main() {
	method := flag.String("method", "approle", "approle, userpass or kubernetes")
	name := flag.String("name", "", "role id of approle, user of userpass, or role of kubernetes")
	file := flag.String("secret-file", "", "file with the secret id, the password, or the pod's token")
	secret := flag.String("secret", "app", "secret to read, below secret/")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, *method, *name, *file, *secret) // it goes on until it is stopped or cannot
	if ctx.Err() == nil {
		log.Fatal(err)
	}
}

// helper makes the login of a method. Each reads its secret from a file when
// it logs in, so that it can be exchanged while the service runs.
func helper(method, name, file string) (api.AuthMethod, error) {
	switch method {
	case "approle":
		return approle.NewAppRoleAuth(name, &approle.SecretID{FromFile: file})
	case "userpass":
		return userpass.NewUserpassAuth(name, &userpass.Password{FromFile: file})
	case "kubernetes":
		return kubernetes.NewKubernetesAuth(name, kubernetes.WithServiceAccountTokenPath(file))
	}
	return nil, fmt.Errorf("there is no method %q here: approle, userpass or kubernetes", method)
}

func run(ctx context.Context, method, name, file, secret string) error {
	client, err := api.NewClient(api.DefaultConfig()) // VAULT_ADDR, VAULT_CACERT, …
	if err != nil {
		return err
	}
	client.ClearToken()
	for {
		auth, err := helper(method, name, file) // it reads the file
		if err != nil {
			return err
		}
		login, err := client.Auth().Login(ctx, auth) // the client uses the token from here on
		if err != nil {
			return err
		}
		log.Printf("logged in with the policies %v for %ds", login.Auth.TokenPolicies, login.Auth.LeaseDuration)
		if err := live(ctx, client, login, secret); err != nil {
			return err
		}
		log.Print("the token can be renewed no further: logging in anew")
	}
}

// live works until the token nears its end.
func live(ctx context.Context, client *api.Client, login *api.Secret, secret string) error {
	watcher, err := client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: login})
	if err != nil {
		return err
	}
	go watcher.Start() // ends with Stop
	defer watcher.Stop()
	for tick := time.Tick(time.Second); ; {
		got, err := client.KVv2("secret").Get(ctx, secret)
		switch {
		case errors.Is(err, api.ErrSecretNotFound):
			log.Printf("there is no secret %s yet", secret)
		case err != nil:
			log.Printf("reading failed, trying again: %v", err)
		default:
			log.Printf("read version %d of %s", got.VersionMetadata.Version, secret)
		}
		select {
		case <-tick:
		case renewed := <-watcher.RenewCh():
			log.Printf("renewed for %ds", renewed.Secret.Auth.LeaseDuration)
		case err := <-watcher.DoneCh():
			return err // nil: renewing again would not make it longer
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
